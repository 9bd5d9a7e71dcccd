"""`env.code`: the user's own modules, taken along as bytes and laid out again wherever an env worker lives.

The bytes go to the workers as an argument of theirs, so that what runs is what lay on the driver's disk when the run
began: no path has to exist on another node, and nothing of an earlier run is found in a cache.
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
from typing import IO

from sdpo.errors import ConfigError

MAX_MIB = 16
_PREFIX = "sdpo-code-"
_LEFT_OUT = ("__pycache__", ".pyc")
_LOCKS = dict[str, IO[str]]()


@dataclass(frozen=True, slots=True)
class Luggage:
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


NO_LUGGAGE = Luggage()


def pack(paths: Sequence[str]) -> Luggage:
    """Reads what `env.code` names: a .py file is a module, a folder a package, each importable by its own name.

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
    return Luggage(tuple(modules), tuple(sorted(files.items())))


def unpack(luggage: Luggage) -> Path | None:
    """Lays the modules out in a folder of this process and puts that first on sys.path; returns it, or None.

    Modules of these names that were imported before are forgotten. The folder goes with the process; that of a killed
    one is removed by the next `sweep`.
    """
    if not luggage.files:
        return None
    sweep()
    folder = _locked_folder()
    for name, content in luggage.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    for known in list(sys.modules):
        if known.partition(".")[0] in luggage.modules:
            del sys.modules[known]
    atexit.register(discard, folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return folder


def discard(folder: Path | None) -> None:
    """Removes what `unpack` made; twice is once. Modules that were imported stay."""
    if folder is None:
        return
    with contextlib.suppress(ValueError):
        sys.path.remove(str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    lock = _LOCKS.pop(str(folder), None)
    if lock is not None:
        folder.with_suffix(".lock").unlink(missing_ok=True)
        lock.close()


def discard_all() -> None:
    """Removes every folder that `unpack` made in this process, and forgets the modules that were imported from them."""
    folders = tuple(_LOCKS)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(folders):
            del sys.modules[name]
    for folder in folders:
        discard(Path(folder))


def sweep() -> None:
    """Removes the folders of processes that are gone: who was killed cannot clean up."""
    for lock_file in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*.lock"):
        try:
            with lock_file.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
                lock_file.unlink(missing_ok=True)
        except OSError:  # it is in use, or another user's
            continue


def _locked_folder() -> Path:
    """A new folder beside a lock file that is held as long as this process lives."""
    while True:
        number, name = tempfile.mkstemp(prefix=_PREFIX, suffix=".lock")
        lock = os.fdopen(number, "r+")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(number).st_nlink:
            folder = Path(name).with_suffix("")
            folder.mkdir(mode=0o700)
            _LOCKS[str(folder)] = lock
            return folder
        lock.close()  # a sweep came between making the file and locking it


def _check_name(text: str, path: Path, name: str, modules: Sequence[str]) -> None:
    if not path.exists():
        raise ConfigError(f"env.code={text}: no such file or folder")
    if path.is_file() and path.suffix != ".py":
        raise ConfigError(f"env.code={text}: allowed: Python files (.py) and folders that are packages")
    if not name.isidentifier():
        raise ConfigError(f"env.code={text}: {name!r} is no name that Python can import; allowed: letters, digits, _")
    if name in modules:
        raise ConfigError(f"env.code={text}: two entries would be imported as {name}; rename one")
    if name in sys.stdlib_module_names or _lies_elsewhere(name, path):
        raise ConfigError(f"env.code={text}: would hide the installed module {name}; rename it")


def _lies_elsewhere(name: str, path: Path) -> bool:
    """Whether something else of that name is importable here. Folders without __init__.py hide nothing."""
    spec = PathFinder.find_spec(name)
    if spec is None or spec.origin is None:
        return False
    own = path.resolve() if path.is_file() else path.resolve() / "__init__.py"
    found = Path(spec.origin).resolve()
    return found != own and not any(part.startswith(_PREFIX) for part in found.parts)


def _files_of(folder: Path) -> Iterator[Path]:
    """The package's files, without caches and hidden ones. Links are followed to files, not to folders."""
    found = False
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if not file.is_file() or any(part.startswith(".") or part.endswith(_LEFT_OUT) for part in parts):
            continue
        found = found or file.suffix == ".py"
        yield file
    if not found:
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
