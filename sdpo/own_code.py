"""Import what a user wrote (module:name), and say in one line which exception of theirs was raised where."""

import difflib
import sys
import sysconfig
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from sdpo.errors import ConfigError

LONGEST_CAUSE_CHARS = 300
_PROJECT = Path(__file__).parents[1]
_PACKAGES = ("sdpo", "env_workers", "orchestrator", "learner", "rollout_workers")
_NOT_THEIRS = (
    "<frozen",
    *(f"{_PROJECT / package}/" for package in _PACKAGES),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)


def load_own(what: str, name: str, home: str) -> Any:
    """Return the attribute that `name`, "module:attribute", names. `what` starts every message: "environment 'a:B'".

    `home`: the key whose files hold such modules, for the hint. Raises `ConfigError` in one line: a module that is
    missing, one that needs a package that is missing, one that raises, or one without the attribute.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = import_module(module_name)
    except SyntaxError as error:
        raise ConfigError(f"{what}: {error.filename}, line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what} cannot be imported: {describe(error)}{_hint(error, module_name, home)}") from None
    found = getattr(module, attribute, None)
    if found is None:
        raise ConfigError(
            f"{what} cannot be imported: {module_name} has no {attribute}{nearest(attribute, vars(module))}"
        )
    return found


def describe(error: BaseException) -> str:
    """Return `ValueError: no such riddle (riddles.py, line 12, in judge)`: the innermost line in the user's files."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_NOT_THEIRS)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno}{_inside(frames[-1].name)})" if frames else ""
    return f"{' '.join(f'{type(error).__name__}: {error}'.split())[:LONGEST_CAUSE_CHARS]}{where}"


def nearest(name: str, names: Any) -> str:
    """Return "; nearest: …" with the most similar of `names`, "" where none is similar."""
    close = difflib.get_close_matches(name, [str(known) for known in names], n=1)
    return f"; nearest: {close[0]}" if close else ""


def _inside(function: str) -> str:
    return "" if function == "<module>" else f", in {function}"


def _hint(error: BaseException, module_name: str, home: str) -> str:
    """Return what to do: list the file under `home`, or install the package that the module needs."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is None:
        return ""
    if f"{module_name}.".startswith(f"{missing}."):
        return f"; is its file in {home}?"
    root = missing.partition(".")[0]
    if root in sys.modules or root in sys.stdlib_module_names:
        return ""
    return f"; is the package {root} installed, or its file in {home}?"
