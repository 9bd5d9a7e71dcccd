"""Packages that programs may import: how their folders reach a sandbox, and what a sandbox finds in them."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from env_workers.runner.codec import decode
from sdpo.config import SandboxLimits
from sdpo.errors import InfrastructureError, SandboxUnavailable

FOLDER = "/run/packages"
_TIME_LIMIT_S = 20.0
_MAX_LIST_BYTES = 2**20
_LIST = """\
import importlib.metadata
import pkgutil
import sys

def packages(folders):
    versions = {}
    for found in importlib.metadata.distributions(path=folders):
        files = (found.read_text("RECORD") or found.read_text("top_level.txt") or "").splitlines()
        for name in {file.partition("/")[0].partition(",")[0].partition(".")[0] for file in files}:
            versions.setdefault(name, found.version)
    names = {module.name for module in pkgutil.iter_modules(folders)} - sys.stdlib_module_names
    names = [name for name in sorted(names) if name.isidentifier() and not name.startswith("_")]
    return [[name, versions.get(name, "")] for name in names]
"""


@dataclass(frozen=True, slots=True)
class Package:
    """A top-level package or module beyond the standard library; version "" where its folder names none."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


class Executes(Protocol):
    """What both `SandboxPool` and `RenewableSandbox` offer."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a sandbox reported when it started."""

    def execute(self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float) -> Any:
        """See `env_workers.environment.Executor.execute`."""


def mounts(limits: SandboxLimits) -> dict[str, str]:
    """Return the place inside the sandbox of each folder of `env.sandbox.python_path`, by its place outside."""
    return {folder: f"{FOLDER}/{index}" for index, folder in enumerate(dict.fromkeys(limits.python_path))}


def check_folders(limits: SandboxLimits) -> None:
    """Raise SandboxUnavailable for an entry of `env.sandbox.python_path` that is no folder of this machine."""
    for folder in limits.python_path:
        if not Path(folder).is_dir():
            reason = "not a folder" if Path(folder).exists() else "no such folder"
            raise unavailable(folder, f"{reason} on {socket.gethostname()}")


def check_readable(limits: SandboxLimits, facts: Mapping[str, Any]) -> None:
    """Raise SandboxUnavailable for a folder that programs cannot list, by what the runner reported."""
    inside = {there: here for here, there in mounts(limits).items()}
    for folder, reason in facts["unreadable"]:
        if folder in inside:
            cause = f"cannot be listed inside the sandbox, whose user is {facts['uid']} there ({reason})"
            raise unavailable(inside[folder], cause)


def unavailable(folder: str, reason: str) -> SandboxUnavailable:
    """Return the error for an entry of `env.sandbox.python_path`."""
    return SandboxUnavailable(
        f"env.sandbox.python_path={folder}: {reason}; allowed: folders of packages that exist on every machine where "
        "sandboxes run, and that every user may read"
    )


def list_packages(sandbox: Executes) -> tuple[Package, ...]:
    """Ask a sandbox that has started what programs may import beyond the standard library, by name.

    Names that begin with an underscore and namespace packages are left out. Raises InfrastructureError where the list
    cannot be made.
    """
    folders = sandbox.facts.get("import_folders", [])
    if not folders:
        return ()
    record = _call(sandbox, _LIST, "packages", [["list", folders]])
    if record.get("status") != "returned":
        raise InfrastructureError(f"the packages of the sandbox could not be listed: {record!r:.300}")
    return tuple(Package(*entry) for entry in decode(record["value"]))


def import_failure(sandbox: Executes, name: str, time_limit_s: float) -> str:
    """Return why a program that imports `name` fails within the time of one test, "" where it does not."""
    record = _call(sandbox, f"import {name}\ndef loaded():\n    return 1\n", "loaded", [], time_limit_s)
    if record.get("status") == "returned":
        return ""
    return " ".join(f"{record.get('type', record.get('status'))} {record.get('message', '')}".split())[:300]


def _call(
    sandbox: Executes, source: str, function: str, inputs: list[Any], time_limit_s: float = _TIME_LIMIT_S
) -> dict[str, Any]:
    call = {"kind": "functional", "function": function, "inputs": inputs, "max_output_bytes": _MAX_LIST_BYTES}
    (record,) = sandbox.execute(source, [call], time_limit_s)
    return dict(record)
