"""What the doctor says of programs that are missing."""

from orchestrator.commands.doctor.finding import Level
from orchestrator.commands.doctor.tools import NEEDED_BY, judge_tools


def test_missing_programs_are_one_note() -> None:
    (finding,) = judge_tools(dict.fromkeys(NEEDED_BY, "/usr/bin/x"))
    assert finding.level is Level.OK
    (finding,) = judge_tools({"prometheus": None, "docker": None, "git": "/usr/bin/git"})
    assert finding.level is Level.NOTE
    assert "docker is not installed, only make env-image needs it" in finding.message
    assert finding.fix == "apt-get install prometheus docker.io"
