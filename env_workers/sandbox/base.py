"""What every kind of sandbox offers: executions and conversations with the runner inside it.

One execution at a time; a sandbox that failed is closed, never used again.
"""

import contextlib
import json
import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from env_workers.runner.asserts import MAX_VALUE_BYTES
from env_workers.runner.bundle import bundle, digest
from env_workers.sandbox.channel import Channel, Stream
from env_workers.sandbox.packages import check_readable, mounts
from sdpo.config import SandboxLimits
from sdpo.errors import InfrastructureError

SHARED_FOLDER_BYTES = 2**20
"""Of /dev/shm, which semaphores of `multiprocessing` need; its larger memory then lies in the work folder."""
GRACE_S = 5.0
"""What the sandbox may take beyond a limit: to notice, to answer, to clean up."""
MAX_LINE_BYTES = 8 * 2**20
RESTARTING = ("memory_limit", "process_limit")
"""Outcomes after which a sandbox is replaced: the kernel may have killed more than the program."""
_NEEDED_OUTPUT = "max_output_bytes"
_GARBLED = {"status": "garbled"}
Mode = Literal["candidate", "asserts"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How the process of a conversation ended: the last message of the conversation.

    `outcome` is a record as `Sandbox.execute` makes them: a limit, exited (code), killed (code), garbled, or
    stopped (by `Conversation.close`).
    """

    outcome: Mapping[str, Any]


class Sandbox(ABC):
    """Runs programs of unknown intent. The inputs of tests go in, never their expected outputs.

    A kind of sandbox starts a runner (`env_workers.runner`) in `start` and calls `_boot`.
    """

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits
        self._channel: Channel | None = None
        self._num_executions = 0
        self._settled = True
        self._nonce = ""
        self._restart_reason: str | None = None

    @abstractmethod
    def start(self) -> Mapping[str, Any]:
        """Start it; return facts about it (kind, python, ...). Raises SandboxUnavailable or InfrastructureError."""

    @abstractmethod
    def close(self) -> None:
        """End all of its processes. May be called twice."""

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        """Run the program on each call; return the runner's records, unchecked (see `env_workers.runner`), one a call.

        A call is {"kind": "functional", "function", "inputs"[, "kwargs"][, "plain"]} or {"kind": "stdin", "input"}.
        With `max_output_bytes` a call needs an output limit of so much; the largest holds for all, where it is above
        that of the sandbox. The program's process does not see the key.
        With a true `plain` a value travels as the built-in type that it compares like. Each call gets a fresh module of
        its own; with `shared` (functional calls only) one module serves all, so state is kept from call to call.
        time_limit_s is the wall time of one call. Raises InfrastructureError within the sandbox's own deadline.
        """
        wall_time_s = self._limits.wall_time_s
        seen = [{key: value for key, value in call.items() if key != _NEEDED_OUTPUT} for call in calls]
        max_output_bytes = max([self._limits.max_output_bytes, *(call.get(_NEEDED_OUTPUT, 0) for call in calls)])
        request = {"mode": "calls", "source": source, "calls": seen, "shared": shared}
        request["max_output_bytes"] = max_output_bytes
        self._begin({"op": "run", "num_calls": len(calls)}, request, time_limit_s, wall_time_s)
        head, body = self.receive(wall_time_s + GRACE_S)
        records = _records(head, body, len(calls))
        self._note_restart_reason(head, records)
        return records

    def converse(
        self, mode: Mode, program: Mapping[str, Any], time_limit_s: float, wall_time_s: float | None = None
    ) -> "Conversation":
        """Start a process that exchanges messages; no other execution until the conversation is closed.

        mode candidate, program {"source"}: loads the program once and says {"status": "ready"}; every message
        {"function", "args", "kwargs"}, with values encoded, is answered by an outcome record.

        mode asserts, program {"functions", "source", "groups"}: runs the asserts; says {"ask": {"function", "args",
        "kwargs"}} and waits for that call's outcome record as the answer, {"outcome": record} once a group, and at
        last {"finished": true}.

        time_limit_s is the longest the process may work without a message while nothing is asked of the host;
        wall_time_s (default: the sandbox's) the longest it may live.
        """
        head = {"op": "converse", "strict": mode == "candidate"}
        wall_time_s = wall_time_s or self._limits.wall_time_s
        max_output_bytes = max(self._limits.max_output_bytes, MAX_VALUE_BYTES)
        request = {**program, "mode": mode, "max_output_bytes": max_output_bytes}
        self._begin(head, request, time_limit_s, wall_time_s)
        return Conversation(self)

    @property
    def restart_reason(self) -> str | None:
        """Why it must be replaced before the next execution, None where it need not. May wait for its clean-up.

        executions, memory_limit, process_limit, unclean (something of the last program is left), lost, or age.
        """
        self._settle()
        if self._restart_reason is None and self._num_executions >= self._limits.max_executions:
            return "executions"
        return self._restart_reason

    @property
    def channel(self) -> Channel:
        """The channel to the runner. Raises InfrastructureError while it does not run; any thread may close it."""
        if self._channel is None:
            raise InfrastructureError("the sandbox is not running")
        return self._channel

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Return the next frame of the current execution. Raises InfrastructureError, also for a forged frame.

        PID 1 alone can read the nonce: the process of an execution is forked before its request arrives.
        """
        head, body = self.channel.receive(timeout_s)
        if head.get("nonce") != self._nonce:
            raise InfrastructureError("the sandbox sent an answer to no request")
        return head, body

    def ended(self, head: Mapping[str, Any]) -> Ended:
        """Read the last frame of a conversation."""
        outcome = head["ended"] if isinstance(head["ended"], dict) else _GARBLED
        self._note_restart_reason(head, [outcome])
        return Ended(outcome)

    def _boot(
        self,
        stream: Stream,
        timeout_s: float,
        *,
        own_uid: bool,
        image_packages: bool,
        filters: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send the runner; return its `python`, `uid`, `sha256` and `import_folders` as it reports them.

        Raises InfrastructureError, and SandboxUnavailable for a folder of packages that programs cannot read.

        `own_uid`: the kernel counts the sandbox's processes apart from all others (they have a user of their own).
        `image_packages`: programs may import what the interpreter's own package folders hold.
        `filters`: of system calls, by machine, for the runner to enter itself (`env_workers.runner.system_calls`).
        """
        channel = Channel(stream)
        settings = {
            **_settings(self._limits, own_uid),
            "filters": filters,
            "python_path": list(mounts(self._limits).values()),
            "image_packages": image_packages,
        }
        facts = channel.boot(bundle(), settings, timeout_s)
        if facts.get("sha256") != digest():
            raise InfrastructureError(f"the sandbox runs another runner: {facts.get('sha256')!r:.80}")
        check_readable(self._limits, facts)
        self._channel = channel
        return {name: facts.get(name) for name in ("python", "uid", "sha256", "import_folders")}

    def _begin(
        self, head: Mapping[str, Any], request: Mapping[str, Any], time_limit_s: float, wall_time_s: float
    ) -> None:
        self._settle()
        if self._restart_reason == "lost":
            raise InfrastructureError("the sandbox did not come back from the last execution")
        self._num_executions += 1
        self._settled = False
        times = {"time_limit_s": time_limit_s, "wall_time_s": wall_time_s}
        line_bytes = MAX_LINE_BYTES if request["mode"] == "asserts" else 8 * request["max_output_bytes"] + 2**16
        self._nonce = secrets.token_hex(16)
        head = {**head, **times, "max_line_bytes": line_bytes, "nonce": self._nonce}
        self.channel.send(head, encoded(request), GRACE_S)

    def _settle(self) -> None:
        """Wait for the clean-up after the last execution, which runs while the host reads the outcome.

        A sandbox that is lost in the clean-up is to be replaced; the outcome of the execution stands.
        """
        if self._settled:
            return
        self._settled = True
        try:
            head, _ = self.receive(GRACE_S)
        except InfrastructureError:
            self._restart_reason = "lost"
            return
        if head.get("clean", "") is not None:
            self._restart_reason = "unclean"

    def _note_restart_reason(self, head: Mapping[str, Any], records: Sequence[Any]) -> None:
        statuses = [record.get("status") for record in records if isinstance(record, dict)]
        limit = next((status for status in statuses if status in RESTARTING), None)
        self._restart_reason = self._restart_reason or ("memory_limit" if head.get("oom") else limit)


class Conversation:
    """Messages to and from one process in a sandbox. What comes out of it is unchecked JSON."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._ended: Ended | None = None

    def send(self, message: Any) -> None:
        """Hand the process a message. Raises InfrastructureError; that the process ended is reported by `receive`."""
        if self._ended is None:
            with self._failing_for_good():
                self._sandbox.channel.send({"op": "message"}, encoded(message), GRACE_S)

    def receive(self, timeout_s: float) -> Any:
        """Return the next message, or `Ended`, then always that. Raises InfrastructureError after timeout_s."""
        if self._ended is not None:
            return self._ended
        with self._failing_for_good():
            head, body = self._sandbox.receive(timeout_s)
        if "ended" in head:
            self._ended = self._sandbox.ended(head)
            return self._ended
        try:
            return json.loads(body.decode())
        except (ValueError, RecursionError):
            self.close()
            self._ended = Ended(_GARBLED)
            return self._ended

    def close(self) -> Ended:
        """End the process; the sandbox then serves the next execution. May be called twice."""
        if self._ended is None:
            head: Mapping[str, Any] = {}
            with self._failing_for_good():
                self._sandbox.channel.send({"op": "end"}, b"", GRACE_S)
                while "ended" not in head:
                    head, _ = self._sandbox.receive(GRACE_S)
            self._ended = self._sandbox.ended(head)
        return self._ended

    @contextlib.contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        """After an error the conversation counts as ended: the sandbox is to be closed."""
        try:
            yield
        except InfrastructureError:
            self._ended = Ended(_GARBLED)
            raise


def encoded(message: Any) -> bytes:
    """Return a message as the JSON that goes into a sandbox."""
    return json.dumps(message, separators=(",", ":")).encode()


def _settings(limits: SandboxLimits, own_uid: bool) -> dict[str, Any]:
    return {
        "cpu_limit_s": math.ceil(limits.processor_time_s),
        "memory_bytes": limits.memory_mib * 2**20,
        "max_processes": limits.max_processes,
        "max_open_files": limits.max_open_files,
        "max_files": limits.max_files,
        "max_file_bytes": limits.max_file_mib * 2**20,
        "max_output_bytes": limits.max_output_bytes,
        "own_uid": own_uid,
    }


def _records(head: Mapping[str, Any], body: bytes, num_calls: int) -> list[Any]:
    """Return one record a call. A line that is no record becomes `garbled`, and the calls after it `not_run`."""
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
