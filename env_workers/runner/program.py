"""Runs one program, in the current process: no isolation here, and no limit but that on its output."""

import builtins
import contextlib
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from env_workers.runner.answers import plain_answer, value_answer
from env_workers.runner.codec import TooLargeError, UnsupportedError, decode
from env_workers.runner.limits import limit_behind
from env_workers.runner.stdio import OutputFlood, Stdio

PROGRAM_FILE = "Solution.py"
MAX_FRAMES = 3
MAX_MESSAGE_CHARS = 1000
Outcome = dict[str, Any]
Answer = Callable[[Any, int], Outcome]
"""Turns a return value and the bytes it may take into the outcome of a call."""
Script = Callable[[types.CodeType, str], Outcome]
"""Runs a program as a script, on the text of its stdin (see `env_workers.runner.script`)."""


def run_program(
    source: str,
    calls: Sequence[Mapping[str, Any]],
    max_output_bytes: int = 65536,
    stdio: Stdio | None = None,
    shared: bool = False,
    script: Script | None = None,
) -> Iterator[Outcome]:
    """Yield one outcome for each call, in order, each in a fresh module, or with `shared` all in one.

    The value of a call with a true `plain` travels as the built-in type that it compares like (see `plain_answer`).
    `script` runs the program on the text of a stdin call; without it the program runs as a module of this process,
    which goes on, so that nothing of the program happens after its last line. After a script that took all of its
    processor time the calls are not run.
    """
    stdio = stdio or Stdio(max_output_bytes)
    if shared:
        yield from serve_calls(source, calls, stdio)
        return
    code = compile_program(source)
    stopped = False
    for call in calls:
        if stopped:
            yield {"status": "not_run"}
        elif isinstance(code, dict):
            yield dict(code)
        elif script is not None and call["kind"] == "stdin":
            outcome = _guarded(partial(script, code, call["input"]))
            stopped = outcome["status"] == "cpu_limit"
            yield outcome
        else:
            yield _run_call(code, call, stdio)


def serve_calls(
    source: str, calls: Iterable[Mapping[str, Any]], stdio: Stdio, answer: Answer = value_answer
) -> Iterator[Outcome]:
    """Yield outcomes as `run_program` does, for functional calls that arrive one by one.

    The program is loaded once, before the first call. What stopped it from loading is the outcome of every call.
    """
    code = compile_program(source)
    with _module("solution") as namespace:
        failure = code if isinstance(code, dict) else _load(code, namespace, stdio)
        for call in calls:
            yield dict(failure) if failure else _captured(stdio, "", partial(_call, namespace, call, stdio, answer))


def compile_program(source: str) -> types.CodeType | Outcome:
    """Return the program's code, or the outcome of every call of one that cannot be compiled."""
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


def raised(error: BaseException, file: str = PROGRAM_FILE) -> Outcome:
    """Return the record of an exception with its innermost frames in `file`; of one that a limit caused, that limit."""
    if limit := limit_behind(error):
        return {"status": limit}
    frames = []
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            frames.append([step.tb_lineno, step.tb_frame.f_code.co_name[:100]])
        step = step.tb_next
    try:
        message = str(error)
    except BaseException:  # __str__ is the program's own code
        message = ""
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[: MAX_MESSAGE_CHARS // 2]} ... {message[-MAX_MESSAGE_CHARS // 2 :]}"
    name = type(error).__name__[:100]
    return {"status": "raised", "type": name, "message": message, "frames": frames[-MAX_FRAMES:]}


def _syntax_error(name: str, message: str, line: int, source: str) -> Outcome:
    return {"status": "syntax_error", "type": name, "message": message, "line": line, "source": source[:250]}


def _run_call(code: types.CodeType, call: Mapping[str, Any], stdio: Stdio) -> Outcome:
    if call["kind"] == "stdin":
        with _module("__main__") as namespace:
            return _captured(stdio, call["input"], lambda: _script(code, namespace))
    with _module("solution") as namespace:
        return _captured(stdio, "", lambda: _load_and_call(code, namespace, call, stdio))


@contextlib.contextmanager
def _module(name: str) -> Iterator[dict[str, Any]]:
    """Yield the namespace of a fresh module, which `import` finds while the context lasts."""
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    outer = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield module.__dict__
    finally:
        if outer is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = outer


def _script(code: types.CodeType, namespace: dict[str, Any]) -> Outcome:
    try:
        exec(code, namespace)
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
    return {"status": "printed"}


def _exec_module(code: types.CodeType, namespace: dict[str, Any]) -> None:
    """Execute a module, and wait for the threads that it leaves running as the end of a script would.

    Daemon threads are not waited for, nor the threads of executors: functions may use those later.
    """
    before = set(_live_threads())
    exec(code, namespace)
    while threads := [thread for thread in _live_threads() if thread not in before and _ends_by_itself(thread)]:
        threads[0].join()


def _live_threads() -> list[Any]:
    threading = sys.modules.get("threading")
    return threading.enumerate() if threading else []


def _ends_by_itself(thread: Any) -> bool:
    workers = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())
    return not thread.daemon and thread not in workers and thread is not sys.modules["threading"].current_thread()


def _load(code: types.CodeType, namespace: dict[str, Any], stdio: Stdio) -> Outcome | None:
    def load() -> Outcome:
        _exec_module(code, namespace)
        return {"status": "loaded"}

    outcome = _captured(stdio, "", load)
    return None if outcome["status"] == "loaded" else outcome


def _load_and_call(code: types.CodeType, namespace: dict[str, Any], call: Mapping[str, Any], stdio: Stdio) -> Outcome:
    _exec_module(code, namespace)
    return _call(namespace, call, stdio, value_answer)


def _call(namespace: dict[str, Any], call: Mapping[str, Any], stdio: Stdio, answer: Answer) -> Outcome:
    function = _find_function(namespace, call["function"])
    kwargs = {name: decode(value) for name, value in call.get("kwargs", {}).items()}
    value = function(*[decode(item) for item in call["inputs"]], **kwargs)
    return (plain_answer if call.get("plain") else answer)(value, stdio.max_output_bytes)


def _find_function(namespace: dict[str, Any], name: str) -> Any:
    if name in namespace:
        return namespace[name]
    solution = namespace.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    raise NameError(f"the program does not define {name}")


def _captured(stdio: Stdio, text: str, body: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of `body`, or of how it fails, with `text` on stdin; its output is recorded."""
    stdio.enter(text)
    try:
        outcome = _guarded(body)
    finally:
        written = stdio.leave()
    if written is None and outcome["status"] != "memory_limit":
        return {"status": "output_limit"}
    if outcome["status"] == "printed":
        outcome["text"] = (written or b"").decode("utf-8", "replace")
    return outcome


def _guarded(body: Callable[[], Outcome]) -> Outcome:
    try:
        return body()
    except (TooLargeError, OutputFlood):
        return {"status": "output_limit"}
    except UnsupportedError as error:
        return {"status": "returned_other", "type": str(error)}
    except MemoryError:
        return {"status": "memory_limit"}
    except BaseException as error:  # a program may raise anything, KeyboardInterrupt included
        return raised(error)
