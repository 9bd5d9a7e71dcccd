"""`env.code`: the user's own modules, sent to the env workers as bytes and written to a folder there.

The bytes are an argument of the workers, so that what runs is what was on the driver's disk when the run began: no
path has to exist on another node, and nothing of an earlier run is found in a cache.
"""

import atexit
import contextlib
import fcntl
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.machinery import PathFinder
from pathlib import Path

from sdpo.errors import ConfigError

MAX_MIB = 16
_PREFIX = "sdpo-code-"
_EXCLUDED = ("__pycache__", ".pyc")
_LOCKS = dict[Path, int]()
"""The folders that this process made, and the descriptor that keeps each one locked while the process lives."""


@dataclass(frozen=True, slots=True)
class CodeBundle:
    """`files`: path below a folder of sys.path -> content; `modules`: the top-level names in it."""

    modules: tuple[str, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over names and contents; "" when there is nothing."""
        if not self.files:
            return ""
        whole = sha256()
        for name, content in self.files:
            whole.update(f"{len(name)}:{name}:{len(content)}:".encode() + content)
        return whole.hexdigest()


NO_CODE = CodeBundle()


def pack(paths: Sequence[str]) -> CodeBundle:
    """Read what `env.code` names: a .py file is a module, a folder a package, each importable by its own name.

    Raises ConfigError for a path that is missing, a name that cannot be imported or that would hide another module,
    too many bytes, and a file with a syntax error.
    """
    modules, files = list[str](), dict[str, bytes]()
    for text in paths:
        path = Path(text)
        name = path.resolve().name.removesuffix(".py")
        _check_name(text, path, name, modules)
        modules.append(name)
        for file in [path] if path.is_file() else _files_of(path):
            below = f"{name}.py" if path.is_file() else f"{name}/{file.relative_to(path).as_posix()}"
            files[below] = _content(file)
        if sum(map(len, files.values())) > MAX_MIB * 2**20:
            raise ConfigError(f"env.code={text}: allowed: at most {MAX_MIB} MiB in all; data belongs beside the tasks")
    return CodeBundle(tuple(modules), tuple(sorted(files.items())))


def unpack(code_bundle: CodeBundle) -> Path | None:
    """Write the modules to a new folder, put that first on sys.path, and return it; None where there are none.

    Modules of these names that were imported before are forgotten. The folder is removed when the process ends; that
    of a killed process is removed by the next `sweep`.
    """
    if not code_bundle.files:
        return None
    sweep()
    folder = _locked_folder()
    for name, content in code_bundle.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    for known in list(sys.modules):
        if known.partition(".")[0] in code_bundle.modules:
            del sys.modules[known]
    atexit.register(discard, folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return folder


def discard(folder: Path | None) -> None:
    """Remove a folder that `unpack` made, unless that was done. Modules that were imported from it stay."""
    if folder in _LOCKS:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        os.close(_LOCKS.pop(folder))


def discard_all() -> None:
    """Remove every folder that `unpack` made in this process, and forget the modules that were imported from them."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(tuple(map(str, _LOCKS))):
            del sys.modules[name]
    for folder in list(_LOCKS):
        discard(folder)


def sweep() -> None:
    """Remove the folders of processes that have ended: a killed process cannot clean up."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is in use, or another user's
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _locked_folder() -> Path:
    """Make a folder that is locked as long as this process lives. It gets the name that `sweep` looks for last."""
    unnamed = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
    descriptor = os.open(unnamed, os.O_RDONLY)
    with contextlib.suppress(OSError):  # a file system without locks: no sweep can lock it either, or remove it
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    folder = unnamed.rename(unnamed.with_name(unnamed.name.removeprefix("new-")))
    _LOCKS[folder] = descriptor
    return folder


def _check_name(text: str, path: Path, name: str, modules: Sequence[str]) -> None:
    if not path.exists():
        raise ConfigError(f"env.code={text}: no such file or folder")
    if path.is_file() and path.suffix != ".py":
        raise ConfigError(f"env.code={text}: allowed: Python files (.py) and folders that are packages")
    if not name.isidentifier():
        raise ConfigError(f"env.code={text}: {name!r} is no name that Python can import; allowed: letters, digits, _")
    if name in modules:
        raise ConfigError(f"env.code={text}: two entries would be imported as {name}; rename one")
    if name in sys.stdlib_module_names or _exists_elsewhere(name, path):
        raise ConfigError(f"env.code={text}: would hide the installed module {name}; rename it")


def _exists_elsewhere(name: str, path: Path) -> bool:
    """Whether something else of that name is importable here. Folders without __init__.py hide nothing."""
    spec = PathFinder.find_spec(name)
    if spec is None or spec.origin is None:
        return False
    own = path.resolve() if path.is_file() else path.resolve() / "__init__.py"
    existing = Path(spec.origin).resolve()
    return existing != own and not any(part.startswith(_PREFIX) for part in existing.parts)


def _files_of(folder: Path) -> Iterator[Path]:
    """Yield the package's files, without caches and hidden ones. Links are followed to files, not to folders."""
    has_python = False
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if not file.is_file() or any(part.startswith(".") or part.endswith(_EXCLUDED) for part in parts):
            continue
        has_python = has_python or file.suffix == ".py"
        yield file
    if not has_python:
        raise ConfigError(f"env.code={folder}: holds no Python file")


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"env.code={file}: cannot be read: {error.strerror}") from None
    if file.suffix == ".py":
        try:
            compile(content, str(file), "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            raise ConfigError(f"env.code={file}: line {line}: {getattr(error, 'msg', error)}") from None
    return content
