"""The host's side of the runner: executions and conversations over a channel, whatever the sandbox is made of."""

import contextlib
import json
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from env_workers.runner.bundle import bundle, digest
from env_workers.sandbox.channel import Channel
from env_workers.sandbox.protocol import Ended, Mode
from sdpo.config import SandboxLimits
from sdpo.errors import InfrastructureError

GRACE_S = 5.0
"""What the sandbox may take beyond a limit: to notice, to answer, to clean up."""
MAX_LINE_BYTES = 8 * 2**20
WEARING = ("memory_limit", "process_limit")
_GARBLED = {"status": "garbled"}


class RunnerClient:
    """Talks to a runner that `Channel.boot` has not reached yet. One execution at a time.

    `own_uid`: the kernel counts the sandbox's processes apart from everybody else's (a user of its own). `filters`: of
    system calls, for the runner to enter itself (see `env_workers.runner.system_calls`).
    """

    def __init__(
        self, channel: Channel, limits: SandboxLimits, own_uid: bool, filters: Mapping[str, str] | None = None
    ) -> None:
        self._channel, self._limits, self._own_uid, self._filters = channel, limits, own_uid, filters
        self._num_executions = 0
        self._settled = True
        self._nonce = ""
        self._worn: str | None = None

    def boot(self, timeout_s: float) -> dict[str, Any]:
        """Sends the runner in; `python`, `uid` and `sha256` as it says them. Raises InfrastructureError."""
        settings = {**_settings(self._limits, self._own_uid), "filters": self._filters}
        facts = self._channel.boot(bundle(), settings, timeout_s)
        if facts.get("sha256") != digest():
            raise InfrastructureError(f"the sandbox runs another runner: {facts.get('sha256')!r:.80}")
        return {name: facts.get(name) for name in ("python", "uid", "sha256")}

    def execute(self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, shared: bool) -> Any:
        """See `Sandbox.execute`."""
        wall_time_s = self._limits.wall_time_s
        request = {"mode": "calls", "source": source, "calls": list(calls), "shared": shared}
        self._begin({"op": "run", "num_calls": len(calls)}, request, time_limit_s, wall_time_s)
        head, body = self.receive(wall_time_s + GRACE_S)
        records = _records(head, body, len(calls))
        self._wear(head, records)
        return records

    def converse(
        self, mode: Mode, program: Mapping[str, Any], time_limit_s: float, wall_time_s: float | None
    ) -> "RunnerConversation":
        """See `Sandbox.converse`."""
        head = {"op": "converse", "strict": mode == "candidate"}
        wall_time_s = wall_time_s or self._limits.wall_time_s
        self._begin(head, {**program, "mode": mode}, time_limit_s, wall_time_s)
        return RunnerConversation(self, self._channel)

    @property
    def worn(self) -> bool:
        """See `Sandbox.worn`."""
        self._settle()
        return self._worn is not None or self._num_executions >= self._limits.max_executions

    @property
    def why_worn(self) -> str:
        """Why it is to be thrown away; meaningful when `worn`."""
        return self._worn or "executions"

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """The next frame about the execution under way. Raises InfrastructureError, for one that is forged too.

        PID 1 alone can read the nonce: the process of an execution is forked before its request arrives.
        """
        head, body = self._channel.receive(timeout_s)
        if head.get("nonce") != self._nonce:
            raise InfrastructureError("the sandbox sent an answer that nobody asked for")
        return head, body

    def ended(self, head: Mapping[str, Any]) -> Ended:
        """What the last frame of a conversation says."""
        outcome = head["ended"] if isinstance(head["ended"], dict) else _GARBLED
        self._wear(head, [outcome])
        return Ended(outcome)

    def _begin(
        self, head: Mapping[str, Any], request: Mapping[str, Any], time_limit_s: float, wall_time_s: float
    ) -> None:
        self._settle()
        if self._worn == "lost":
            raise InfrastructureError("the sandbox did not come back from the last execution")
        self._num_executions += 1
        self._settled = False
        times = {"time_limit_s": time_limit_s, "wall_time_s": wall_time_s}
        line_bytes = MAX_LINE_BYTES if request["mode"] == "asserts" else 8 * self._limits.max_output_bytes + 2**16
        self._nonce = secrets.token_hex(16)
        head = {**head, **times, "max_line_bytes": line_bytes, "nonce": self._nonce}
        self._channel.send(head, encoded(request), GRACE_S)

    def _settle(self) -> None:
        """Waits for the clean-up after the last execution, which overlaps with whatever the host does with it.

        A sandbox that is lost in it has done its work: it is worn, and nobody's outcome is in doubt.
        """
        if self._settled:
            return
        self._settled = True
        try:
            head, _ = self.receive(GRACE_S)
        except InfrastructureError:
            self._worn = "lost"
            return
        if head.get("clean", "") is not None:
            self._worn = "unclean"

    def _wear(self, head: Mapping[str, Any], records: Sequence[Any]) -> None:
        statuses = [record.get("status") for record in records if isinstance(record, dict)]
        worn = next((status for status in statuses if status in WEARING), None)
        self._worn = self._worn or ("memory_limit" if head.get("oom") else worn)


class RunnerConversation:
    """A `Conversation` with the process that `RunnerClient.converse` started."""

    def __init__(self, client: RunnerClient, channel: Channel) -> None:
        self._client, self._channel = client, channel
        self._ended: Ended | None = None

    def send(self, message: Any) -> None:
        """See `Conversation.send`."""
        if self._ended is None:
            with self._giving_up():
                self._channel.send({"op": "tell"}, encoded(message), GRACE_S)

    def receive(self, timeout_s: float) -> Any:
        """See `Conversation.receive`."""
        if self._ended is not None:
            return self._ended
        with self._giving_up():
            head, body = self._client.receive(timeout_s)
        if "ended" in head:
            self._ended = self._client.ended(head)
            return self._ended
        try:
            return json.loads(body.decode())
        except (ValueError, RecursionError):
            self.close()
            self._ended = Ended(_GARBLED)
            return self._ended

    def close(self) -> Ended:
        """See `Conversation.close`."""
        if self._ended is None:
            head: Mapping[str, Any] = {}
            with self._giving_up():
                self._channel.send({"op": "end"}, b"", GRACE_S)
                while "ended" not in head:
                    head, _ = self._client.receive(GRACE_S)
            self._ended = self._client.ended(head)
        return self._ended

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        """After an error nothing is waited for any more: the sandbox is to be closed."""
        try:
            yield
        except InfrastructureError:
            self._ended = Ended(_GARBLED)
            raise


def encoded(message: Any) -> bytes:
    """JSON as it goes into a sandbox."""
    return json.dumps(message, separators=(",", ":")).encode()


def _settings(limits: SandboxLimits, own_uid: bool) -> dict[str, Any]:
    return {
        "cpu_limit_s": math.ceil(limits.cpu_time_s),
        "memory_bytes": limits.memory_mib * 2**20,
        "max_processes": limits.max_processes,
        "max_open_files": limits.max_open_files,
        "max_files": limits.max_files,
        "max_file_bytes": limits.max_file_mib * 2**20,
        "max_output_bytes": limits.max_output_bytes,
        "own_uid": own_uid,
    }


def _records(head: Mapping[str, Any], body: bytes, num_calls: int) -> list[Any]:
    """One record a call. A line that is none makes its record `garbled` and the rest not run."""
    lines = body.split(b"\n")[:-1]
    ended = head.get("ended")
    if not isinstance(head.get("lines"), int) or len(lines) != head["lines"] or len(lines) > num_calls:
        raise InfrastructureError("the sandbox sent an answer without outcomes")
    records: list[Any] = []
    for line in lines:
        record = _record(line)
        records.append(record)
        if record is _GARBLED:
            ended = None
            break
    if ended is not None and len(records) < num_calls:
        records.append(ended)
    return records + [{"status": "not_run"}] * (num_calls - len(records))


def _record(line: bytes) -> Any:
    try:
        record = json.loads(line[1:].decode()) if line[:1] == b"!" else None
    except (ValueError, RecursionError):
        record = None
    return record if isinstance(record, dict) and isinstance(record.get("status"), str) else _GARBLED
