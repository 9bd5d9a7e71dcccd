"""One tracker as the run sees it: a thread feeds its process, so that a slow or broken library never delays the run.

RUN_DIR/trackers/KIND.json holds the tracked run's id, the settings that it belongs to, and the last step that was
handed over: a resumed run continues the same tracked run and hands no step over twice.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from orchestrator.trackers.protocol import Outcome, TrackedRun
from sdpo.errors import InfrastructureError
from sdpo.files import write_atomically

START_S = 120.0
LOG_S = 30.0
ROOT = Path(__file__).resolve().parents[2]


class TrackerProcess:
    """`log` and `finish` never wait. `failure` is the reason why the tracker was switched off, or None.

    A step that a resumed run takes again is not logged again: the tracker keeps its first row.
    """

    def __init__(self, kind: str, run: TrackedRun, *, start_s: float = START_S, log_s: float = LOG_S) -> None:
        self.kind = kind
        self.failure: str | None = None
        self._run, self._start_s, self._log_s = run, start_s, log_s
        folder = Path(run.folder) / "trackers"
        folder.mkdir(parents=True, exist_ok=True)
        self._log_file, self._state_file = folder / f"{kind}.log", folder / f"{kind}.json"
        self._requests: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._connection, theirs = Pipe()
        with theirs:
            self._process = self._spawn(theirs.fileno())
        self._thread = threading.Thread(target=self._feed, name=f"tracker-{kind}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """The tracker's process."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def log(self, step: int, values: dict[str, float]) -> None:
        """Hand one row over when the tracker is ready for it."""
        self._requests.put(("log", step, values))

    def finish(self, outcome: Outcome) -> None:
        """End the tracked run after the rows that were handed over; `close` waits for that."""
        self._requests.put(("finish", outcome))

    def close(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for what was handed over, then end the process."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.failure = f"it did not take everything within {timeout_s:g} s of the run's end"
        self._end()

    def _spawn(self, fd: int) -> subprocess.Popen[bytes]:
        """Start the process in a session of its own, so that Ctrl-C does not reach it.

        It is not a process of `multiprocessing`, which would run the user's main script once more.
        """
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        with self._log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "orchestrator.trackers.child", self.kind, str(fd)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[fd],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )

    def _feed(self) -> None:
        try:
            self._hand_over()
        except Exception as error:  # no error of a tracker may end the run; `failure` is shown with the next row
            text = str(error) if isinstance(error, InfrastructureError) else f"{type(error).__name__}: {error}"
            self.failure = self.failure or " ".join(text.split())
            self._end()

    def _hand_over(self) -> None:
        settings = {key: value for key, value in self._run.settings.items() if key != "mode"}
        state = json.loads(self._state_file.read_text()) if self._state_file.exists() else {}
        if state.get("place") != settings:
            state = {"place": settings, "id": None, "last_step": -1}
        state["id"] = self._ask("start", replace(self._run, id=state["id"]), timeout_s=self._start_s)
        self._write(state)
        while (request := self._requests.get())[0] == "log":
            step = request[1]
            if step > state["last_step"]:
                state["last_step"] = step
                self._write(state)
                self._ask(*request, timeout_s=self._log_s)
        self._ask(*request, timeout_s=self._log_s)

    def _write(self, state: dict[str, Any]) -> None:
        write_atomically(self._state_file, json.dumps(state))

    def _ask(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        """Call a method of the tracker; return its result.

        Raises `InfrastructureError` with the library's error, or if there is no answer within `timeout_s`.
        """
        try:
            self._connection.send((method, *arguments))
            if not self._connection.poll(timeout_s):
                raise InfrastructureError(f"no answer to {method} within {timeout_s:g} s")
            error, result = self._connection.recv()
        except (EOFError, OSError):
            raise InfrastructureError(f"its process ended during {method}") from None
        if error:
            raise InfrastructureError(error)
        return result

    def _end(self) -> None:
        """End the process; one that was asked to finish gets a moment to end by itself."""
        self._connection.close()
        try:
            self._process.wait(0.0 if self.failure else 5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5.0)
