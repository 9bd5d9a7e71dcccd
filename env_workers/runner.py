"""Runs one program on the inputs of its tests. Standard library only: it is bound into the sandbox as it is.

`run_program` executes in the current process (trusted programs only) and yields one outcome a call;
`env_workers.sandbox.init` is PID 1 of a sandbox and forks a fresh process around it, under limits.

An outcome is a JSON mapping with a `status`: returned (value), printed (text), returned_other (type), raised (type,
message, frames), syntax_error (type, message, line, source), memory_limit, output_limit; and, only from a sandbox:
timeout, process_limit, exited (code), killed (code), garbled, not_run.
"""

import builtins
import contextlib
import io
import os
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

PROGRAM_FILE = "Solution.py"
MAX_DEPTH = 64
MAX_FRAMES = 3
MAX_MESSAGE_CHARS = 1000
Outcome = dict[str, Any]


class UnsupportedError(Exception):
    """A value outside the closed set of types. The message says what it is, for example `a value of type object`."""


class TooLargeError(Exception):
    """A value whose encoding would pass its byte budget."""


def encode(value: Any, budget_bytes: int) -> Any:
    """JSON for None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict: exact types only.

    Raises UnsupportedError for any other type (subclasses too) and beyond MAX_DEPTH, TooLargeError beyond the budget.
    """
    left = [budget_bytes]

    def visit(value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in (list, tuple, set, frozenset, dict):
            if depth == MAX_DEPTH:
                raise UnsupportedError("a value that is nested too deeply")
            left[0] -= 16 * (1 + len(value))
        elif kind is int:
            left[0] -= 16 + value.bit_length() // 4
        else:
            left[0] -= 16 + (4 * len(value) if kind in (str, bytes) else 0)
        if left[0] < 0:
            raise TooLargeError
        if kind is dict:
            return ["dict", [[visit(key, depth + 1), visit(item, depth + 1)] for key, item in value.items()]]
        if kind in (list, tuple, set, frozenset):
            return [kind.__name__, [visit(item, depth + 1) for item in value]]
        return _encode_scalar(value)

    return visit(value, 0)


def _encode_scalar(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if abs(value) < 2**63 else ["int", hex(value)]
    if kind is float:
        return ["float", value.hex()]
    if kind is complex:
        return ["complex", value.real.hex(), value.imag.hex()]
    if kind is bytes:
        return ["bytes", value.hex()]
    raise UnsupportedError(f"a value of type {kind.__name__[:60]}")


def decode(data: Any) -> Any:
    """The inverse of `encode`. Raises ValueError for anything that `encode` does not make."""
    if data is None or type(data) in (bool, int, str):
        return data
    try:
        name, *rest = data
        if name == "int":
            return int(rest[0], 16)
        if name == "float":
            return float.fromhex(rest[0])
        if name == "complex":
            return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
        if name == "bytes":
            return bytes.fromhex(rest[0])
        if name == "dict":
            return {decode(key): decode(item) for key, item in rest[0]}
        return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[name]([decode(i) for i in rest[0]])
    except (TypeError, KeyError, IndexError, OverflowError, ValueError, RecursionError):
        raise ValueError("not an encoded value") from None


class _OutputFlood(BaseException):
    """The program wrote more than it may."""


class _Sink(io.RawIOBase):
    """Where a program's stdout or stderr goes: a bounded buffer or a file descriptor, behind Python's own layers."""

    def __init__(self, max_bytes: int, fd: int | None = None) -> None:
        self.left_bytes, self.fd, self.buffer = max_bytes, fd, bytearray()
        self.flooded = self.closing = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self.fd is None:
            raise io.UnsupportedOperation("fileno")
        return self.fd

    def write(self, data: Any) -> int:
        size = len(data)
        self.left_bytes -= size
        self.flooded = self.flooded or self.left_bytes < 0
        if self.flooded:
            if not self.closing:
                raise _OutputFlood
        elif self.fd is not None:
            os.write(self.fd, data)
        else:
            self.buffer += data
        return size


def _text_layer(raw: io.RawIOBase) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", write_through=False)


class Stdio:
    """Standard streams of one call, in memory: for trusted programs in the current process."""

    def __init__(self, max_output_bytes: int) -> None:
        self.max_output_bytes = max_output_bytes

    def enter(self, text: str) -> None:
        """Points sys.stdin, sys.stdout and sys.stderr at fresh streams; `text` is what stdin holds."""
        self.saved = sys.stdin, sys.stdout, sys.stderr
        self.out, self.err = self._sinks()
        sys.stdin = io.TextIOWrapper(io.BufferedReader(self._stdin(text.encode("utf-8", "surrogatepass"))), "utf-8")
        self.layers = sys.stdout, sys.stderr = _text_layer(self.out), _text_layer(self.err)

    def leave(self) -> bytes | None:
        """Restores the streams; the bytes written to stdout, None when stdout or stderr passed their limit."""
        sys.stdin, sys.stdout, sys.stderr = self.saved
        flooded = self.out.flooded or self.err.flooded
        self.out.closing = self.err.closing = True
        for layer in self.layers:
            with contextlib.suppress(OSError, ValueError):  # the program may have closed or broken the stream
                layer.flush()
        written = self._written()
        flooded = flooded or self.out.flooded or self.err.flooded or len(written) > self.max_output_bytes
        return None if flooded else written

    def _sinks(self) -> tuple[_Sink, _Sink]:
        return _Sink(self.max_output_bytes), _Sink(self.max_output_bytes)

    def _stdin(self, data: bytes) -> Any:
        return io.BytesIO(data)

    def _written(self) -> bytes:
        return bytes(self.out.buffer)


class FdStdio(Stdio):
    """As Stdio, with descriptors 0 and 1 too (`open(0)`, `os.write(1, ...)`): for a process of its own.

    The streams are nameless files in `folder`.
    """

    def __init__(self, max_output_bytes: int, folder: str) -> None:
        super().__init__(max_output_bytes)
        self.folder = folder

    def _nameless_file(self) -> int:
        return os.open(self.folder, os.O_TMPFILE | os.O_RDWR, 0o600)

    def _sinks(self) -> tuple[_Sink, _Sink]:
        self.file = self._nameless_file()
        os.dup2(self.file, 1)
        return _Sink(self.max_output_bytes, fd=1), _Sink(self.max_output_bytes)

    def _stdin(self, data: bytes) -> Any:
        file = self._nameless_file()
        with open(file, "wb", closefd=False) as writer:
            writer.write(data)
        os.lseek(file, 0, os.SEEK_SET)
        os.dup2(file, 0)
        os.close(file)
        return open(0, "rb", buffering=0, closefd=False)

    def _written(self) -> bytes:
        try:
            written = os.pread(self.file, self.max_output_bytes + 1, 0)
            os.close(self.file)
        except OSError:
            return b""  # the program closed our descriptor: its output is gone, and that is its own doing
        return written


def run_program(
    source: str, calls: list[dict[str, Any]], max_output_bytes: int = 65536, stdio: Stdio | None = None
) -> Iterator[Outcome]:
    """One outcome for each call, in order, each in a fresh module. No time limit and no isolation here."""
    stdio = stdio or Stdio(max_output_bytes)
    code: Any = _compile(source)
    for call in calls:
        yield code if isinstance(code, dict) else _run_call(code, call, stdio)


def _compile(source: str) -> types.CodeType | Outcome:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(source, PROGRAM_FILE, "exec", dont_inherit=True)
    except SyntaxError as error:
        lines = source.splitlines()
        line = error.lineno if error.lineno and error.lineno <= len(lines) else len(lines)
        text = lines[line - 1].strip() if line else ""
        return _syntax_error(type(error).__name__, str(error.msg), line, text)
    except MemoryError:
        return {"status": "memory_limit"}
    except (ValueError, RecursionError, OverflowError) as error:
        return _syntax_error(type(error).__name__, "the program cannot be compiled", 0, "")


def _syntax_error(name: str, message: str, line: int, source: str) -> Outcome:
    return {"status": "syntax_error", "type": name, "message": message, "line": line, "source": source[:250]}


def _run_call(code: types.CodeType, call: dict[str, Any], stdio: Stdio) -> Outcome:
    scripted = call["kind"] == "stdin"
    name = "__main__" if scripted else "solution"
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    outer = sys.modules.get(name)
    sys.modules[name] = module
    stdio.enter(call.get("input", ""))
    try:
        outcome = _outcome_of(code, module.__dict__, None if scripted else call, stdio.max_output_bytes)
    finally:
        written = stdio.leave()
        if outer is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = outer
    if written is None and outcome["status"] != "memory_limit":
        return {"status": "output_limit"}
    if outcome["status"] == "printed":
        outcome["text"] = (written or b"").decode("utf-8", "replace")
    return outcome


def _outcome_of(
    code: types.CodeType, namespace: dict[str, Any], call: dict[str, Any] | None, max_bytes: int
) -> Outcome:
    try:
        exec(code, namespace)
        if call is None:
            return {"status": "printed"}
        function = _find_function(namespace, call["function"])
        value = function(*[decode(item) for item in call["inputs"]])
        return {"status": "returned", "value": encode(value, max_bytes)}
    except (TooLargeError, _OutputFlood):
        return {"status": "output_limit"}
    except UnsupportedError as error:
        return {"status": "returned_other", "type": str(error)}
    except MemoryError:
        return {"status": "memory_limit"}
    except SystemExit as error:
        return {"status": "printed"} if call is None and error.code in (None, 0) else _raised(error)
    except BaseException as error:  # a program may raise anything, KeyboardInterrupt included
        return _raised(error)


def _find_function(namespace: dict[str, Any], name: str) -> Any:
    if name in namespace:
        return namespace[name]
    solution = namespace.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    raise NameError(f"the program does not define {name}")


def _raised(error: BaseException) -> Outcome:
    frames = []
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == PROGRAM_FILE:
            frames.append([step.tb_lineno, step.tb_frame.f_code.co_name[:100]])
        step = step.tb_next
    try:
        message = str(error)
    except BaseException:  # __str__ is the program's own code
        message = ""
    name = type(error).__name__[:100]
    return {"status": "raised", "type": name, "message": message[:MAX_MESSAGE_CHARS], "frames": frames[-MAX_FRAMES:]}
