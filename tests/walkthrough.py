"""A page of the docs as a shell script: its files are written and its commands are run, in the page's order."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.run_fixtures import ROOT

BLOCK = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def files_of(page: Path) -> dict[str, str]:
    """The blocks that carry a file name after their language."""
    return {name: text for _, name, text in BLOCK.findall(page.read_text()) if name}


def script_of(page: Path) -> str:
    """Blocks with a file name become files in whatever folder the commands are in by then; sh blocks are commands."""
    parts = []
    for language, name, text in BLOCK.findall(page.read_text()):
        if name:
            parts.append(f"cat > {name} <<'END OF FILE'\n{text}END OF FILE\n")
        elif language == "sh":
            parts.append(text)
    return "".join(parts)


def follow(page: Path, home: Path, timeout_s: float) -> str:
    """Runs the page from the cloned folder with `home` as home folder; what it printed. Fails where a command fails."""
    command = home / "bin" / "sdpo"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{Path(sys.executable).parent}:/usr/bin:/bin"
    printed = home / "printed"
    with printed.open("w") as out:
        process = subprocess.Popen(
            ["bash", "-euxo", "pipefail", "-c", script_of(page)],
            cwd=ROOT,
            env={**os.environ, "HOME": str(home), "PATH": path},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            raise AssertionError(f"not done after {timeout_s} s; it printed:\n{printed.read_text()}") from None
    assert code == 0, printed.read_text()
    return printed.read_text()
