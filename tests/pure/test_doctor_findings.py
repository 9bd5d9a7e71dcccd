"""How the doctor runs its checks and prints their findings."""

import errno
import json
import time
from io import StringIO

from orchestrator.commands.doctor.finding import Check, Finding, Level, run_checks, worst
from orchestrator.commands.doctor.show import as_json, print_findings
from sdpo.errors import ConfigError


def test_a_check_that_hangs_or_fails_is_a_finding() -> None:
    def hang() -> list[Finding]:
        time.sleep(60)
        return []

    def fail() -> list[Finding]:
        raise OSError(errno.EIO, "strange machine")

    def leave() -> list[Finding]:
        raise SystemExit(3)

    looks = {"hangs": hang, "fails": fail, "leaves": leave}
    checks = [Check("g", name, look, deadline_s=0.3, needed=name == "fails") for name, look in looks.items()]
    began = time.monotonic()
    findings = run_checks(checks)
    assert time.monotonic() - began < 5
    assert [(f.name, f.level) for f in findings] == [
        ("hangs", Level.WARNING),
        ("fails", Level.BROKEN),
        ("leaves", Level.WARNING),
    ]
    assert "no answer within 0.3 s" in findings[0].message
    assert "strange machine" in findings[1].message
    assert worst(findings) is Level.BROKEN
    assert worst([]) is Level.OK


def test_a_check_that_finds_nothing_or_refuses_its_input() -> None:
    def refuse() -> list[Finding]:
        raise ConfigError("steps=0: allowed: above 0")

    assert run_checks([Check("g", "quiet", list)]) == []
    assert run_checks([Check("g", "input", refuse)]) == [
        Finding("g", "input", Level.BROKEN, "steps=0: allowed: above 0")
    ]


def test_findings_are_plain_lines_or_json() -> None:
    findings = [Finding("Memory", "shm", Level.WARNING, "x" * 200, "--shm-size=4g")]
    out = StringIO()
    print_findings(findings, out)
    assert out.getvalue().splitlines() == [
        "Memory",
        f"  warning  {'x' * 200}",
        "           -> --shm-size=4g",
        "nothing that is needed is broken; 1 warnings",
    ]
    assert json.loads(as_json(findings))["findings"][0]["fix"] == "--shm-size=4g"


def test_a_terminal_gets_wrapped_lines_with_the_fix_below() -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    findings = [
        Finding("Memory", "shm", Level.WARNING, "word " * 60, "--shm-size=4g"),
        Finding("Memory", "memory", Level.OK, "enough", "not shown"),
        Finding("Disk", "disk", Level.BROKEN, "full", "free space"),
    ]
    print_findings(findings, out)
    text = out.getvalue()
    assert "→ --shm-size=4g" in text
    assert "not shown" not in text
    assert text.count("word") == 60
    assert "1 broken, 1 warnings: see the arrows above" in text
    assert max(map(len, text.splitlines())) < 200, "long messages are wrapped"
