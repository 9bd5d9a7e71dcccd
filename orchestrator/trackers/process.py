"""One tracker seen from the run: a thread feeds its process, so that a slow or broken library never holds the run up.

RUN_DIR/trackers/KIND.json holds the tracked run's id, where it lives, and the last step that was handed over: a run
that goes on continues the same tracked run and hands no step over twice.
"""

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orchestrator.trackers.protocol import Outcome, TrackedRun
from sdpo.errors import InfrastructureError
from sdpo.files import write_atomically

START_S = 120.0
LOG_S = 30.0
ROOT = Path(__file__).resolve().parents[2]


class TrackerProcess:
    """`log` and `finish` never wait. `failure` says why the tracker was switched off; None: it was not.

    A step that a run takes again after a resume is not logged again: the tracker keeps the row it has.
    """

    def __init__(self, kind: str, run: TrackedRun, *, start_s: float = START_S, log_s: float = LOG_S) -> None:
        self.kind = kind
        self.failure: str | None = None
        self._run, self._start_s, self._log_s = run, start_s, log_s
        folder = Path(run.folder) / "trackers"
        folder.mkdir(parents=True, exist_ok=True)
        self._log_file, self._state_file = folder / f"{kind}.log", folder / f"{kind}.json"
        self._rows: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._process = self._spawn()
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
        """Hand one row over, sooner or later."""
        self._rows.put({"do": "log", "step": step, "values": values})

    def finish(self, outcome: Outcome) -> None:
        """No more rows. `close` waits for it."""
        self._rows.put({"do": "finish", "outcome": outcome})

    def close(self, timeout_s: float) -> None:
        """Wait so long for what was handed over, then end the process."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.failure = f"it did not take everything within {timeout_s:g} s of the run's end"
        self._kill()

    def _spawn(self) -> subprocess.Popen[bytes]:
        """In a session of its own: an interrupt of the run is no interrupt of its tracker."""
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        with self._log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "orchestrator.trackers.child", self.kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )

    def _feed(self) -> None:
        try:
            self._hand_over()
        except Exception as error:  # nothing that a tracker does may end the run; `failure` is told at the next row
            text = str(error) if isinstance(error, InfrastructureError) else f"{type(error).__name__}: {error}"
            self.failure = self.failure or " ".join(text.split())
            self._kill()

    def _hand_over(self) -> None:
        place = {key: value for key, value in self._run.settings.items() if key != "mode"}
        state = json.loads(self._state_file.read_text()) if self._state_file.exists() else {}
        if state.get("place") != place:
            state = {"place": place, "id": None, "last_step": -1}
        run = replace(self._run, id=state["id"])
        state["id"] = self._ask({"do": "start", "run": asdict(run)}, self._start_s)["id"]
        self._keep(state)
        while (row := self._rows.get())["do"] == "log":
            if row["step"] > state["last_step"]:
                state["last_step"] = row["step"]
                self._keep(state)
                self._ask(row, self._log_s)
        self._ask(row, self._log_s)

    def _keep(self, state: dict[str, Any]) -> None:
        write_atomically(self._state_file, json.dumps(state))

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """One request and its answer. Raises `InfrastructureError` if there is none in time, or if it is an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + timeout_s
        text = b""
        while not text.endswith(b"\n"):
            left_s = max(deadline - time.monotonic(), 0.0)
            if not select.select([self._process.stdout], [], [], left_s)[0]:
                raise InfrastructureError(f"no answer to {request['do']} within {timeout_s:g} s")
            read = os.read(self._process.stdout.fileno(), 65536)
            if not read:
                raise InfrastructureError(f"its process ended during {request['do']}")
            text += read
        answer: dict[str, Any] = json.loads(text)
        if "error" in answer:
            raise InfrastructureError(answer["error"])
        return answer

    def _kill(self) -> None:
        """Give a process that was asked to finish a moment to leave by itself."""
        with contextlib.suppress(OSError):  # it is gone
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(0.0 if self.failure else 5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5.0)
