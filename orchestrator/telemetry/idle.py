"""Attributes the time of actors: an actor is busy, or idle for the first stage of the pipeline that runs anywhere.

Pure functions of the times that are passed in. The cost of an event does not depend on the number of actors.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from sdpo.telemetry.labels import BUSY, RUN_ACTOR, STAGES, WAITS_FOR


@dataclass(slots=True)
class _Account:
    """One actor. `waited_at` is the waiting time by state when its idle time was last booked; None while busy."""

    role: str
    calls: int = 0
    since_s: float = 0.0
    waited_at: dict[str, float] | None = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Accounts:
    """Books the time of actors. Times are seconds of one monotonic clock and must not go back.

    Example: with rollout-0 in a call of `generate` from 0 to 3 and nothing else, `take(4)` gives rollout-0
    {"busy": 3, "orchestrator": 1} and an idle learner-rank0 {"generate": 3, "orchestrator": 1}.
    """

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s
        self._waited = dict.fromkeys(WAITS_FOR, 0.0)
        self._running = Counter[str]()
        self._stage_s = defaultdict[str, float](float)
        self._accounts = dict[str, _Account]()

    @property
    def running(self) -> dict[str, int]:
        """The number of calls that run now, by stage."""
        return {stage: self._running[stage] for stage in STAGES}

    @property
    def actors(self) -> dict[str, str]:
        """The role of every actor."""
        return {actor: account.role for actor, account in self._accounts.items()}

    def __contains__(self, actor: str) -> bool:
        return actor in self._accounts

    def add(self, actor: str, role: str, now_s: float) -> None:
        """Count an actor from now on. Calls of actors that were not added only count for their stage."""
        self._advance(now_s)
        self._accounts[actor] = _Account(role, waited_at=dict(self._waited))

    def remove(self, actor: str, now_s: float) -> dict[str, float]:
        """Remove an actor; return its seconds by state since the last `take`."""
        self._advance(now_s)
        self._settle(self._accounts[actor])
        return dict(self._accounts.pop(actor).seconds)

    def begin(self, actor: str, stage: str, now_s: float) -> None:
        """Begin a call of `actor`."""
        self._advance(now_s)
        account = self._accounts.get(actor)
        if account is not None:
            if account.calls == 0:
                self._settle(account)
                account.waited_at, account.since_s = None, now_s
            account.calls += 1
        self._running[stage] += 1

    def end(self, actor: str, stage: str, now_s: float) -> None:
        """End a call of `actor`."""
        self._advance(now_s)
        self._running[stage] -= 1
        account = self._accounts.get(actor)
        if account is not None and account.calls > 0:
            account.calls -= 1
            if account.calls == 0:
                self._settle(account)
                account.waited_at = dict(self._waited)

    def take(self, now_s: float) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Return the seconds since the last call, by actor and state, and by stage that ran anywhere."""
        self._advance(now_s)
        for account in self._accounts.values():
            self._settle(account)
        seconds = {actor: dict(account.seconds) for actor, account in self._accounts.items()}
        stages = dict(self._stage_s)
        for account in self._accounts.values():
            account.seconds.clear()
        self._stage_s.clear()
        return seconds, stages

    def _advance(self, now_s: float) -> None:
        """Attribute the time up to now to the first stage that ran, to the orchestrator if none did."""
        passed_s, self._now_s = max(0.0, now_s - self._now_s), max(now_s, self._now_s)
        active = [stage for stage in STAGES if self._running[stage] > 0]
        self._waited[active[0] if active else RUN_ACTOR] += passed_s
        for stage in active:
            self._stage_s[stage] += passed_s

    def _settle(self, account: _Account) -> None:
        """Book an actor's time since it was last booked."""
        if account.waited_at is None:
            account.seconds[BUSY] += self._now_s - account.since_s
            account.since_s = self._now_s
            return
        for state, waited_s in self._waited.items():
            if (passed_s := waited_s - account.waited_at.get(state, 0.0)) > 0:
                account.seconds[state] += passed_s
        account.waited_at = dict(self._waited)
