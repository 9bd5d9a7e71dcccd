"""Write deploy/requirements/cpu.lock: exact pins of the packages in the running environment that the project needs.

    .venv/bin/python deploy/requirements/make_lock.py

Follows the project's dependencies and the extras below through the installed packages, for every supported Python and
machine, and adds a marker to packages that only some of them need. Install the result with `--no-deps`.
"""

import platform
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("train", "cpu", "deepspeed", "s3", "wandb", "mlflow", "trackio", "docs", "dev")
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
LEFT_OUT = {
    "torchvision": "a CUDA build on PyPI, with which `import transformers` fails",
    "torchaudio": "the same",
    "torchcodec": "the same",
    "triton": "has no CPU backend, 1 GB",
}


def project_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = list(project["dependencies"])
    for extra in EXTRAS:
        texts += project["optional-dependencies"][extra]
    texts += tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    return [r for r in map(Requirement, texts) if r.name != project["name"]]


def environment(python: str, machine: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def needed(requirement: Requirement, env: dict[str, str], extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**env, "extra": extra}) for extra in extras | {""})


def closure(env: dict[str, str]) -> dict[str, str]:
    """Return the version of each package that the project needs in one environment."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo: list[tuple[Requirement, set[str]]] = [(r, set()) for r in project_requirements()]
    while todo:
        requirement, parent_extras = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT or not needed(requirement, env, parent_extras):
            continue
        distribution = metadata.distribution(name)
        found[name] = distribution.version
        for extra in requirement.extras | {""}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            todo += [(Requirement(text), {extra}) for text in distribution.requires or []]
    return found


def marker_of(where: set[tuple[str, str]]) -> str:
    """The shortest marker that says which (python, machine) pairs need a package."""
    machines = {m for _, m in where}
    pythons = {p for p, _ in where}
    if where != {(p, m) for p in pythons for m in machines}:
        raise SystemExit(f"no simple marker for {sorted(where)}")
    parts = []
    if machines != set(MACHINES):
        parts.append(f'platform_machine == "{machines.pop()}"')
    if pythons != set(PYTHONS):
        oldest = min(pythons, key=PYTHONS.index)
        newest = max(pythons, key=PYTHONS.index)
        parts += [f'python_version >= "{oldest}"', f'python_version <= "{newest}"']
    return f" ; {' and '.join(parts)}" if parts else ""


def lines() -> Iterator[str]:
    yield "# Everything that `make demo`, `make test` and `make lint` need, on CPU. Made by make_lock.py; install with"
    yield "# `pip install --no-deps`. Left out on purpose:"
    yield from (f"#   {name}: {why}" for name, why in LEFT_OUT.items())
    where: dict[str, set[tuple[str, str]]] = {}
    versions: dict[str, str] = {}
    for python in PYTHONS:
        for machine in MACHINES:
            for name, version in closure(environment(python, machine)).items():
                where.setdefault(name, set()).add((python, machine))
                versions[name] = version
    yield from (f"{name}=={versions[name]}{marker_of(where[name])}" for name in sorted(where))


if __name__ == "__main__":
    target = ROOT / "deploy/requirements/cpu.lock"
    target.write_text("\n".join(lines()) + "\n")
    print(f"{target.relative_to(ROOT)}: from Python {platform.python_version()} on {platform.machine()}")
