"""Programs that only some things need."""

import shutil
from collections.abc import Mapping

from orchestrator.doctor.finding import Check, Finding, Level

GROUP = "Other programs"
WANTED = {
    "prometheus": "the tests of metrics",
    "docker": "make env-image",
    "git": "a checkout",
    "chromium": "a test of the report",
}


def tools_check() -> Check:
    """Which of WANTED are on PATH."""
    return Check(
        group=GROUP, name="tools", gather=lambda: {name: shutil.which(name) for name in WANTED}, judge=judge_tools
    )


def judge_tools(found: Mapping[str, str | None]) -> list[Finding]:
    """One note for all that are missing."""
    missing = [name for name, path in found.items() if path is None]
    if not missing:
        return [Finding(group=GROUP, name="tools", level=Level.OK, said=f"{', '.join(found)} are here")]
    said = "; ".join(f"{name} is not here, only {WANTED[name]} needs it" for name in missing)
    mend = f"apt-get install {' '.join('docker.io' if name == 'docker' else name for name in missing)}"
    return [Finding(group=GROUP, name="tools", level=Level.NOTE, said=said, mend=mend)]
