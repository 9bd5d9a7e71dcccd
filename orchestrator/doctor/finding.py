"""Findings, and how checks are run: side by side, each in a thread with a deadline; none of them can hang or crash."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sdpo.errors import UserError
from sdpo.show import show_error


class Level(StrEnum):
    """BROKEN: something that is needed does not work. WARNING: it works, and will hurt. NOTE: good to know."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence on one thing, and what to do about it ("" where there is nothing to do).

    `Finding(group="Memory", name="shm", level=Level.WARNING, said="/dev/shm holds 64 MiB", mend="--shm-size=8g")`
    """

    group: str
    name: str
    level: Level
    said: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`gather` may block or raise, `judge` must not. `needed`: whether a failure of the check itself counts as one."""

    group: str
    name: str
    gather: Callable[[], Any]
    judge: Callable[[Any], Sequence[Finding]]
    deadline_s: float = 10.0
    needed: bool = False


class _Gathering(threading.Thread):
    """A daemon: one that never comes back does not keep the process alive."""

    def __init__(self, check: Check) -> None:
        super().__init__(name=f"doctor-{check.name}", daemon=True)
        self.check = check
        self.findings: Sequence[Finding] | None = None

    def run(self) -> None:
        check = self.check
        try:
            self.findings = check.judge(check.gather())
        except UserError as error:
            self.findings = [_failed(check, Level.BROKEN, str(error))]
        except (Exception, SystemExit) as error:  # whatever a strange machine provokes is a finding of its own
            said = f"this could not be looked at: {type(error).__name__}: {show_error(error)}"
            self.findings = [_failed(check, _blame(check), said)]


def run_checks(checks: Sequence[Check]) -> list[Finding]:
    """All findings, in the order of the checks; takes as long as the slowest check or its deadline."""
    threads = [_Gathering(check) for check in checks]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    found: list[Finding] = []
    for thread in threads:
        thread.join(max(0.0, began + thread.check.deadline_s - time.monotonic()))
        late = _failed(thread.check, _blame(thread.check), f"no answer within {thread.check.deadline_s:g} s")
        found += [late] if thread.findings is None else thread.findings
    return found


def worst(findings: Sequence[Finding]) -> Level:
    """The gravest level among them."""
    order = list(Level)
    return max((f.level for f in findings), key=order.index, default=Level.OK)


def _blame(check: Check) -> Level:
    return Level.BROKEN if check.needed else Level.WARNING


def _failed(check: Check, level: Level, said: str) -> Finding:
    return Finding(group=check.group, name=check.name, level=level, said=said)
