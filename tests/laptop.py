"""A Python that has `ray[default]` and nothing else, made of the packages that are installed here."""

import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def with_requirements(name: str, extra: str) -> set[str]:
    """The distribution, and every other one that it needs with `extra`, by canonical name."""
    found = set[str]()
    below = [(canonicalize_name(name), extra)]
    seen = set[tuple[str, str]]()
    while below:
        name, extra = below.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            needed = distribution(name).requires or []
        except PackageNotFoundError:  # an optional one of another platform
            continue
        found.add(name)
        for requirement in map(Requirement, needed):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", extra)):
                below += [(canonicalize_name(requirement.name), e) for e in {"", *requirement.extras}]
    return found


def make_laptop(folder: Path) -> dict[str, str]:
    """Fill `folder` with links to those packages; the environment in which `python -S` finds them and no others.

    Nothing of this process's environment is in it but PATH.
    """
    folder.mkdir()
    for name in with_requirements("ray", "default"):
        known = distribution(name)
        for top in {file.parts[0] for file in known.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(known.locate_file(top))))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "HOME": str(folder)}


PYTHON = (sys.executable, "-S")
RAY = (*PYTHON, "-c", "from ray.scripts.scripts import main; main()")
