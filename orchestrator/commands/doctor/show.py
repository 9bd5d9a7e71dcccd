"""Print findings as text or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from orchestrator.commands.doctor.finding import Finding, Level, worst

MARKS = {level: level.value for level in Level} | {Level.BROKEN: "BROKEN"}
COLOURS = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.BROKEN: "bold red"}
WIDTH = max(map(len, MARKS.values()))


def as_json(findings: Sequence[Finding]) -> str:
    """Return {"worst": level, "findings": [{group, name, level, message, fix}, ...]} as JSON."""
    return json.dumps({"worst": worst(findings), "findings": [asdict(f) for f in findings]}, indent=2)


def print_findings(findings: Sequence[Finding], to: TextIO) -> None:
    """Print findings by group; on a terminal coloured and wrapped, elsewhere one line for each."""
    if to.isatty():
        _print_coloured(findings, to)
        return
    for group, members in _grouped(findings):
        print(group, file=to)
        for finding in members:
            print(f"  {MARKS[finding.level]:{WIDTH}}  {finding.message}", file=to)
            if finding.fix and finding.level is not Level.OK:
                print(f"  {'':{WIDTH}}  -> {finding.fix}", file=to)
    print(_closing(findings), file=to)


def _print_coloured(findings: Sequence[Finding], to: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=to, highlight=False)
    for group, members in _grouped(findings):
        console.print(Text(group, style="bold"))
        table = Table.grid(padding=(0, 0, 0, 2))
        for finding in members:
            message = Text(finding.message)
            if finding.fix and finding.level is not Level.OK:
                message.append(f"\n→ {finding.fix}", style="italic")
            table.add_row(Text(f"{MARKS[finding.level]:{WIDTH}}", style=COLOURS[finding.level]), message)
        console.print(table)
    console.print(Text(_closing(findings), style="bold"))


def _grouped(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    groups = dict.fromkeys(f.group for f in findings)
    return [(group, [f for f in findings if f.group == group]) for group in groups]


def _closing(findings: Sequence[Finding]) -> str:
    broken, warnings = (sum(f.level is level for f in findings) for level in (Level.BROKEN, Level.WARNING))
    if broken:
        return f"{broken} broken, {warnings} warnings: see the arrows above"
    return f"nothing that is needed is broken; {warnings} warnings"
