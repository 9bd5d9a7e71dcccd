"""Other programs, which only some things need."""

import shutil
from collections.abc import Iterator, Mapping

from orchestrator.commands.doctor.finding import Check, Finding, Level

GROUP = "Other programs"
NEEDED_BY = {
    "prometheus": "the tests of metrics",
    "docker": "make env-image",
    "git": "a checkout",
    "chromium": "a test of the report",
}


def tools_check() -> Check:
    """Check which of NEEDED_BY are on PATH."""
    return Check(GROUP, "tools", lambda: judge_tools({name: shutil.which(name) for name in NEEDED_BY}))


def judge_tools(paths: Mapping[str, str | None]) -> Iterator[Finding]:
    """Write one note for all programs that are missing. `paths`: None for a missing one."""
    missing = [name for name, path in paths.items() if path is None]
    if not missing:
        yield Finding(GROUP, "tools", Level.OK, f"{', '.join(paths)} are installed")
        return
    message = "; ".join(f"{name} is not installed, only {NEEDED_BY[name]} needs it" for name in missing)
    fix = f"apt-get install {' '.join('docker.io' if name == 'docker' else name for name in missing)}"
    yield Finding(GROUP, "tools", Level.NOTE, message, fix)
