"""Sessions of attempts in several turns, kept open between two turns.

A session that this worker does not have (its env worker died, it was closed as the oldest of too many, another worker
had it) is opened anew and replayed with the attempt's history. Answers depend on task and replies alone: one that
differs in a replay is a fault.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from env_workers.answers import of_environment
from env_workers.environment import Exchange, Observation, SandboxViolation, Session
from sdpo.errors import InfrastructureError
from sdpo.types import Task, Verdict

History = tuple[Exchange, ...]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _OpenSession:
    session: Session
    history: History
    expires_s: float


class Sessions:
    """The open sessions of a worker, for any number of threads. A taken session is the caller's until it is kept."""

    def __init__(
        self, open_session: Callable[[Task], Session], ttl_s: float, limit: int, clock: Callable[[], float]
    ) -> None:
        """`ttl_s`: how long a session is kept for its next turn. `limit`: how many; the oldest is closed."""
        self._open, self._ttl_s, self._limit, self._clock = open_session, ttl_s, limit, clock
        self._sessions: dict[str, _OpenSession] = {}
        self._lock = Lock()
        self.num_replayed = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def take(self, attempt: str, task: Task, history: History) -> Session:
        """Return the attempt's session, at the end of `history`. Raises InfrastructureError where a replay differs."""
        entry = self._pop(attempt)
        self.sweep()
        if entry is not None and entry.history == history:
            return entry.session
        if entry is not None:
            close(entry.session)
        with of_environment(task, "open"):
            session = self._open(task)
        try:
            for turn, exchange in enumerate(history):
                self._replay(session, task, turn, exchange)
        except BaseException:
            close(session)
            raise
        self.num_replayed += bool(history)
        return session

    def keep(self, attempt: str, session: Session, history: History) -> None:
        """Keep a session for the turn after `history`."""
        entry = _OpenSession(session, history, self._clock() + self._ttl_s)
        with self._lock:
            displaced = self._sessions.pop(attempt, None)
            self._sessions[attempt] = entry
        if displaced is not None:
            close(displaced.session)
        self.sweep()

    def forget(self, attempt: str) -> None:
        """Close the attempt's session, if there is one."""
        entry = self._pop(attempt)
        if entry is not None:
            close(entry.session)

    def sweep(self, *, everything: bool = False) -> None:
        """Close sessions whose time is over, and the oldest of too many."""
        now_s = self._clock()
        with self._lock:
            names = [name for name, entry in self._sessions.items() if everything or entry.expires_s <= now_s]
            left = [name for name in self._sessions if name not in names]
            names += left[: max(0, len(left) - self._limit)]
            gone = [self._sessions.pop(name) for name in names]
        for entry in gone:
            close(entry.session)

    def _pop(self, attempt: str) -> _OpenSession | None:
        with self._lock:
            return self._sessions.pop(attempt, None)

    def _replay(self, session: Session, task: Task, turn: int, exchange: Exchange) -> None:
        answer: Observation | Verdict | SandboxViolation
        try:
            with of_environment(task, "step"):
                answer = session.step(exchange.reply)
        except SandboxViolation as violation:
            answer = violation
        if answer != exchange.observation:
            raise InfrastructureError(
                f"task {task.id}: environment {task.environment} answered turn {turn} in another way when it was "
                f"played again: {answer!r:.200}"
            )


def close(session: Session) -> None:
    """End a session. What it raises is written to the log: the attempt that it belonged to is over."""
    try:
        session.close()
    except Exception:
        log.exception("a session could not be closed")
