"""PID 1 of a sandbox: serves executions, each in a fresh process. Standard library only.

After the boot (see `env_workers.runner.bundle`) the host sends frames. Heads: {"op": "run", "num_calls",
"time_limit_s", "wall_time_s", "max_line_bytes", "nonce"} or {"op": "converse", "strict" instead of "num_calls"}, the
body being the request of `env_workers.runner.child`; in a conversation {"op": "message"}, the body being a message, or
{"op": "end"}.

Answers. To run: {"ended", "lines", "oom"}, the body being that many lines. In a conversation: {"waits"} with what the
process sent, at last {"ended", "oom"}. After either, when everything but PID 1 was killed and reaped and the folders
are empty: {"clean": what is left anyway, or None}. All of them carry the request's nonce, which no process of an
execution has ever seen: not every kernel keeps programs from writing to PID 1's descriptors.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from env_workers.runner.buffer import Buffer
from env_workers.runner.child import GOES_ON, WAITS, run_child
from env_workers.runner.cleanup import Cleaner, kill_all
from env_workers.runner.framing import SIZES, check_sizes, decode_json, encode_json, pack, parse_head
from env_workers.runner.limits import WORK_DIR, Settings, enter_limits_to_inherit, set_dumpable
from env_workers.runner.packages import import_folders, unreadable
from env_workers.runner.program import run_program
from env_workers.runner.system_calls import enter_filter
from env_workers.runner.watch import Outcome, Watch

ANSWER_TIMEOUT_S = 5.0


def serve(digest: str) -> NoReturn:
    """Answer on descriptors 0 and 1 until the other side closes. Refuses to run outside a PID namespace."""
    if os.getpid() != 1:
        raise SystemExit("this process kills every other process that it can see: it only runs as PID 1 of a sandbox")
    set_dumpable(False)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # for programs: graders lift it, and time and output are limited
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(WORK_DIR)
    os.set_blocking(1, False)
    settings, body = _read_frame()
    body.close()
    os.chmod(WORK_DIR, 0o700)  # some engines give a mount the mode of the folder beneath
    if settings["filters"]:
        enter_filter(bytes.fromhex(settings["filters"][os.uname().machine]))
    folders = import_folders(settings["python_path"], settings["image_packages"])
    server = _Server({**settings, "import_folders": folders})
    _warm_up()
    gc.collect()
    gc.freeze()
    facts = {"python": sys.version.split()[0], "uid": os.getuid(), "sha256": digest}
    packages = {"import_folders": folders, "unreadable": unreadable(folders)}
    _write(pack({"ready": True, **facts, **packages}))
    while True:
        server.serve_one()


def _warm_up() -> None:
    """Fill the interpreter's caches once, in memory that children share: no child has to do it in a copy."""
    source = "def f(x):\n    return [x]\n"
    calls = [{"kind": "functional", "function": "f", "inputs": [["list", [x, 2.5]]]} for x in range(20)]
    for _ in range(3):
        for outcome in run_program(source, calls):
            decode_json(encode_json(outcome))


class _Server:
    def __init__(self, settings: Settings) -> None:
        enter_limits_to_inherit(settings)
        self._settings = {**settings, "null": os.open(os.devnull, os.O_RDWR)}
        self._cleaner = Cleaner()
        self._fork_spare()

    def serve_one(self) -> None:
        """Serve one execution, from its request until the sandbox is clean and the next process waits in it."""
        head, body = _read_frame()
        if head["op"] not in ("run", "converse"):
            body.close()  # a message to a conversation that had just ended
            return
        self._nonce = head["nonce"]
        watch = Watch(self._spare, self._spare_fd, self._settings, head, listening=head["op"] == "converse")
        watch.send(body)
        if head["op"] == "run":
            self._run(watch, head["num_calls"])
        else:
            self._converse(watch, head["strict"])
        watch.close()
        kill_all()
        _write(pack({"clean": self._cleaner.clean_up(), "nonce": self._nonce}))
        self._fork_spare()

    def _fork_spare(self) -> None:
        ours, theirs = socket.socketpair()
        self._spare = os.fork()
        if self._spare == 0:
            run_child(self._settings, theirs.detach())
        theirs.close()
        ours.setblocking(False)
        self._spare_fd = ours.detach()

    def _run(self, watch: Watch, num_calls: int) -> None:
        ended = None
        while ended is None and len(watch.lines) < num_calls:
            ended = watch.step()
        lines = watch.lines[:num_calls]
        head = self._last_frame(ended if len(lines) < num_calls else None)
        _write_frame({**head, "lines": len(lines)}, watch.output, sum(lines))

    def _converse(self, watch: Watch, strict: bool) -> None:
        """Pass messages both ways. `strict`: the process may only answer; one that sends more is cut off."""
        ended = None
        while ended is None:
            ended = watch.step()
            for length in watch.lines:
                ended = ended or _forward(watch, length, strict, self._nonce)
            watch.lines.clear()
            watch.output.compact()
            if watch.host_sends and ended is None:
                head, body = _read_frame()
                if head["op"] == "message":
                    watch.send(body)
                else:
                    body.close()
                    ended = {"status": "stopped"}
        _write(pack(self._last_frame(ended)))

    def _last_frame(self, ended: Outcome | None) -> dict[str, Any]:
        oom = self._cleaner.out_of_memory()
        return {"ended": {"status": "memory_limit"} if oom and ended else ended, "oom": oom, "nonce": self._nonce}


def _forward(watch: Watch, length: int, strict: bool, nonce: str) -> Outcome | None:
    """Pass one line of the process to the host; return how that ended the conversation, None while it goes on."""
    mark = watch.output.first().to_bytes(1, "big")
    if mark not in (GOES_ON, WAITS) or not watch.in_turn:
        return {"status": "garbled"}
    watch.output.skip(1)
    _write_frame({"waits": mark == WAITS, "nonce": nonce}, watch.output, length - 2)
    watch.output.skip(1)
    if mark == WAITS:
        watch.hold()
        return None
    return {"status": "garbled"} if strict else None


def _read_frame() -> tuple[dict[str, Any], Buffer]:
    """Return the host's next frame, its body as a message of `env_workers.runner.child`.

    Ends this process with the host.
    """
    head_size, body_size = check_sizes(_read(SIZES.size))
    head = parse_head(_read(head_size))
    body = Buffer(4 + body_size)
    body.put(body_size.to_bytes(4, "big"))
    while body.free_bytes:
        if not body.fill(0):
            os._exit(0)
    return head, body


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def _write_frame(head: Mapping[str, Any], body: Buffer, size: int) -> None:
    data = pack(head)
    _write(SIZES.pack(len(data) - SIZES.size, size) + data[SIZES.size :])
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while size:
        _await_writable(deadline)
        with contextlib.suppress(BlockingIOError):
            size -= body.drain(1, size)


def _write(data: bytes) -> None:
    left = memoryview(data)
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while left:
        try:
            left = left[os.write(1, left) :]
        except BlockingIOError:
            _await_writable(deadline)


def _await_writable(deadline: float) -> None:
    poller = select.poll()
    poller.register(1, select.POLLOUT)
    if not poller.poll(1000 * max(0.0, deadline - time.monotonic())):
        os._exit(1)  # the host does not read
