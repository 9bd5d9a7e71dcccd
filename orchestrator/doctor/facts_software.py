"""Which Python and which packages there are, and what the project asks for. Nothing heavy is imported."""

import importlib.metadata as metadata
import re
import shutil
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rollout_workers.engine import why_not_loadable

PROJECT = "sdpo"
ROOT = Path(__file__).parents[2]
BUILDS = ("torch", "torchvision", "torchaudio")
_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"]?([\w.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One requirement: of the project itself (extra "") or of one of its extras."""

    extra: str
    requirement: Requirement


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareFacts:
    """installed: version by canonical name, of what `wanted` names and of BUILDS. cuda: of each of BUILDS that is
    installed, the CUDA version that it was built for, None for a CPU build. has_numa: libnuma.so.1 can be loaded;
    has_compiler, has_headers: g++ and Python.h are here.
    """

    python: tuple[int, ...]
    executable: str
    requires_python: str
    project: str | None
    wanted: tuple[Wanted, ...]
    installed: dict[str, str]
    cuda: dict[str, str | None]
    has_numa: bool
    has_compiler: bool
    has_headers: bool


def gather_software() -> SoftwareFacts:
    """From the metadata of the installed distributions; of an uninstalled checkout, from its pyproject.toml."""
    requires_python, wanted = _wanted()
    names = {canonicalize_name(w.requirement.name) for w in wanted} | set(BUILDS)
    installed = {name: version for name in sorted(names) if (version := _version(name)) is not None}
    return SoftwareFacts(
        python=tuple(sys.version_info[:3]),
        executable=sys.executable,
        requires_python=requires_python,
        project=_version(PROJECT),
        wanted=tuple(wanted),
        installed=installed,
        cuda={name: _cuda_build(name) for name in BUILDS if name in installed},
        has_numa=not why_not_loadable(),
        has_compiler=shutil.which("g++") is not None,
        has_headers=Path(sysconfig.get_path("include"), "Python.h").is_file(),
    )


def _wanted() -> tuple[str, list[Wanted]]:
    try:
        about = metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        parts = {"": project["dependencies"], **project["optional-dependencies"]}
        named = [(extra, Requirement(line)) for extra, lines in parts.items() for line in lines]
        return str(project["requires-python"]), [
            Wanted(extra=extra, requirement=r) for extra, r in named if _applies(r, extra)
        ]
    extras = ["", *(about.metadata.get_all("Provides-Extra") or [])]
    wanted = []
    for requirement in map(Requirement, about.requires or []):
        extra = next((e for e in extras if _applies(requirement, e)), None)
        if extra is not None:
            wanted.append(Wanted(extra=extra, requirement=requirement))
    return str(about.metadata["Requires-Python"] or ""), wanted


def _applies(requirement: Requirement, extra: str) -> bool:
    itself = canonicalize_name(requirement.name) == PROJECT
    return not itself and (requirement.marker is None or requirement.marker.evaluate({"extra": extra}))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cuda_build(name: str) -> str | None:
    """From the package's version.py, which names the CUDA that it was built for; without a line, from its version."""
    file = Path(str(metadata.distribution(name).locate_file(f"{name}/version.py")))
    found = _CUDA.search(file.read_text()) if file.is_file() else None
    if found is not None:
        return None if found[1] == "None" else found[1]
    version = metadata.version(name)
    return None if "+cpu" in version else "unknown"
