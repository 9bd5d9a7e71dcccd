"""Commits attacks through an env worker, as a run would, and looks at what they left behind."""

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from env_workers.environment import Reply
from env_workers.runner.codec import decode
from env_workers.worker import EnvWorker
from sdpo.config import EnvConfig
from sdpo.config.env import SandboxKind
from sdpo.types import Task, Verdict
from tests.attacks.asserts import ASSERTS
from tests.attacks.attack import Attack

SHORT_S, LONG_S = 0.4, 20.0
SETTLE_S = 3.0
LIMITS: dict[str, Any] = {
    "wall_time_s": 25.0,
    "cpu_time_s": 4.0,
    "memory_mib": 192,
    "max_processes": 16,
    "max_file_mib": 16,
    "disk_mib": 32,
}
"""Of the sandboxes that are attacked; files and output as configured by default."""

CENSUS = """
import os, resource, signal
def f(x):
    status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
    folders = [(os.stat(path), os.statvfs(path), os.listxattr(path)) for path in ('/tmp', '/dev/shm')]
    here = [path for path in ('/dev/shm', '/dev/mqueue') if os.path.isdir(path)]
    return {
        'processes': sorted(pid for pid in os.listdir('/proc') if pid.isdigit() and pid not in ('1', str(os.getpid()))),
        'files': sorted(os.listdir('/tmp')),
        'folders': [[oct(s.st_mode), s.st_nlink, s.st_mtime_ns == 123456 * 10**9, marks] for s, _, marks in folders],
        'space': [[space.f_blocks - space.f_bfree, space.f_files - space.f_ffree] for _, space, _ in folders],
        'elsewhere': [os.listdir(path) for path in here],
        'ipc': [open(f'/proc/sysvipc/{name}').read().count('\\n') for name in ('shm', 'sem', 'msg')],
        'sockets': sorted(line.split()[-1] for line in open('/proc/net/unix') if '@' in line),
        'descriptors': len(os.listdir('/proc/self/fd')),
        'limits': [list(resource.getrlimit(which)) for which in range(16) if which != resource.RLIMIT_AS],
        'schedule': [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))],
        'umask': os.umask(0),
        'signals': [status[name].strip() for name in ('SigBlk', 'SigIgn', 'SigCgt', 'ShdPnd')],
        'place': [os.getcwd(), sorted(os.environ), open('/proc/self/oom_score_adj').read()],
        'runner': [open('/proc/1/' + name).read().split()[-1] for name in ('oom_score_adj', 'autogroup', 'comm')
            if os.path.exists('/proc/1/' + name)],
    }
"""


class Host:
    """What the host would have to offer an escaped program: listeners, a secret file, a secret in the environment."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.num_visits = 0
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.secret = f"secret-{os.urandom(8).hex()}"
        (folder / "secret").write_text(self.secret)
        os.environ["SDPO_ATTACK_SECRET"] = self.secret
        self._stack.callback(os.environ.pop, "SDPO_ATTACK_SECRET")
        self._internet, path, abstract = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        for listener, address in (
            (self._internet, ("0.0.0.0", 0)),
            (path, str(folder / "socket")),
            (abstract, f"\0{self.secret[:15]}"),
        ):
            listener.bind(address)
            listener.listen()
            self._stack.callback(listener.close)
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
        self.names = {
            "@secret@": self.secret,
            "@secret_file@": str(folder / "secret"),
            "@repository@": str(Path(__file__).resolve().parents[2]),
            "@port@": str(self._internet.getsockname()[1]),
            "@address@": _own_address(),
            "@socket_path@": str(folder / "socket"),
            "@abstract@": self.secret[:15],
        }

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                visitor, _ = listener.accept()
                self.num_visits += 1
                visitor.close()

    def close(self) -> None:
        """Ends the listeners."""
        self._stack.close()


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class Bench:
    """An env worker under attack. A context manager."""

    def __init__(self, sandbox: SandboxKind, host: Host) -> None:
        config = EnvConfig(sandbox=sandbox.model_copy(update=LIMITS), max_feedback_chars=4000)
        self._worker = EnvWorker(config, "env-under-attack", owner=f"attacks-{os.getpid()}")
        self._host, self._num_judged = host, 0
        self._clean: Any = None

    def __enter__(self) -> Self:
        self._worker.ready()
        honest = self.judge("def f(x):\n    return 2 * x", asserts_task(LONG_S))
        assert honest.success, honest  # and both sandboxes run
        self._clean = self._take_census()
        time.sleep(0.3)  # the process of the next execution is forked while nobody waits
        self._num_processes = len(_descendants())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._worker.close()

    @property
    def sandboxes_started(self) -> int:
        """By this worker, until now."""
        return int(self._worker.ready()["sandboxes_started"])

    def commit(self, attack: Attack) -> Verdict:
        """The verdict on the attack, after the program that is to run before it."""
        if attack.before:
            assert self.judge(attack.before, double_task()).success
        return self.judge(attack.program, task_of(attack))

    def judge(self, program: str, task: Task) -> Verdict:
        """The verdict on a program; `@...@` in it stands for what the host has (see Host)."""
        for name, value in self._host.names.items():
            program = program.replace(name, value)
        self._num_judged += 1
        verdict = self._worker.step(f"a{self._num_judged}", task, (), Reply(text=f"```python\n{program}\n```"))
        assert isinstance(verdict, Verdict)
        return verdict

    def what_is_left(self) -> str:
        """What the next honest program finds other than in a fresh sandbox; and processes. Empty: nothing."""
        verdict = self.judge(CENSUS, functional_task([0], [self._clean], LONG_S))
        if not verdict.success:
            return f"{verdict.kind} {verdict.infrastructure_error or ''}\n{verdict.feedback}"
        deadline = time.monotonic() + SETTLE_S
        while (extra := len(_descendants()) - self._num_processes) > 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        return f"{extra} processes" if extra > 0 else ""

    def _take_census(self) -> Any:
        records = self._worker._sandboxes.execute(
            CENSUS, [{"kind": "functional", "function": "f", "inputs": [0]}], LONG_S
        )
        assert records[0]["status"] == "returned", records
        return decode(records[0]["value"])


def task_of(attack: Attack) -> Task:
    """What the attacking program is asked for. Where it is to be stopped at the time limit, that is short."""
    time_limit_s = SHORT_S if "timeout" in attack.kinds else LONG_S
    if attack.script:
        return script_task(time_limit_s)
    return asserts_task(time_limit_s) if attack.asserts else double_task(time_limit_s)


def asserts_task(time_limit_s: float) -> Task:
    """f(x) = 2 * x, as asserts."""
    test = {"kind": "asserts", "functions": ["f"], "asserts": list(ASSERTS)}
    payload = {"tests": [test], "time_limit_s": time_limit_s}
    return Task(id="asserts", messages=(), environment="code", payload=payload)


def functional_task(inputs: list[Any], expected: list[Any], time_limit_s: float) -> Task:
    """f(input) == expected, for each."""
    tests = [
        {"kind": "functional", "function": "f", "inputs": [i], "expected": e}
        for i, e in zip(inputs, expected, strict=True)
    ]
    return Task(id="f", messages=(), environment="code", payload={"tests": tests, "time_limit_s": time_limit_s})


def double_task(time_limit_s: float = LONG_S) -> Task:
    """f(x) = 2 * x."""
    return functional_task([3, 10], [6, 20], time_limit_s)


def script_task(time_limit_s: float) -> Task:
    """Prints the double of the number on stdin."""
    tests = [{"kind": "stdin", "input": f"{x}\n", "expected": f"{2 * x}\n"} for x in (3, 10)]
    return Task(id="script", messages=(), environment="code", payload={"tests": tests, "time_limit_s": time_limit_s})


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@contextlib.contextmanager
def host() -> Iterator[Host]:
    """A host for the time of a test module."""
    here = Host()
    try:
        yield here
    finally:
        here.close()
