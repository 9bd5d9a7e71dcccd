"""Findings of the doctor, and how its checks run: side by side, each in a thread of its own with a deadline."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sdpo.errors import UserError
from sdpo.show import show_error


class Level(StrEnum):
    """BROKEN: something that is needed does not work. WARNING: it works, and will cause trouble. NOTE: good to know."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing, and how to fix it ("" where there is nothing to fix).

    `Finding("Memory", "shm", Level.WARNING, "/dev/shm: 64 MiB are free", "docker run --shm-size=4g")`
    """

    group: str
    name: str
    level: Level
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """`look` may block or raise. `needed`: a check that fails or is late is BROKEN, else a WARNING."""

    group: str
    name: str
    look: Callable[[], Iterable[Finding]]
    deadline_s: float = 10.0
    needed: bool = False

    def run(self) -> list[Finding]:
        """Return the findings; an error is a finding of its own."""
        try:
            return list(self.look())
        except UserError as error:
            return [Finding(self.group, self.name, Level.BROKEN, str(error))]
        except (Exception, SystemExit) as error:  # an unusual machine may raise anything
            return self.failed(f"the check failed: {type(error).__name__}: {show_error(error)}")

    def failed(self, message: str) -> list[Finding]:
        """Return the finding of a check that has no result."""
        return [Finding(self.group, self.name, Level.BROKEN if self.needed else Level.WARNING, message)]


def run_checks(checks: Sequence[Check]) -> list[Finding]:
    """Return all findings in the order of the checks; takes as long as the slowest check or its deadline."""
    results: dict[int, list[Finding]] = {}

    def run(index: int) -> None:
        results[index] = checks[index].run()

    # daemons: a check that never returns does not keep the process alive
    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(checks))]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    findings: list[Finding] = []
    for index, check in enumerate(checks):
        threads[index].join(max(0.0, began_s + check.deadline_s - time.monotonic()))
        late = check.failed(f"no answer within {check.deadline_s:g} s")
        findings += results.get(index, late)
    return findings


def worst(findings: Iterable[Finding]) -> Level:
    """Return the gravest level; OK if there are no findings."""
    return max((f.level for f in findings), key=list(Level).index, default=Level.OK)
