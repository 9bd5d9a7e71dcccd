"""Run a hundred thousand executions through one sandbox pool: nothing may leak, neither here nor in a sandbox.

    python -m benchmarks.soak [--executions 100000] [--kind bubblewrap] [--every 5000] [--threads 1]

The programs: right ones, wrong ones, ones that raise, print, leave files, folders, processes and sockets behind; of
every hundred two are judged by asserts and one passes a limit, so that its sandbox is thrown away. A line every few
thousand executions: memory of this process and of the sandboxes' PID 1, descriptors, processes, threads, containers,
executions a second. Ends with 1 when at the end, after the sandboxes are closed, anything more is there than after the
first tenth: a process, a container, a descriptor, a thread; or more memory than --bound-kib.
"""

import argparse
import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from env_workers.environment import AssertProgram
from env_workers.sandbox.pool import SandboxPool
from sdpo.config import BubblewrapSandbox, DockerSandbox, EnvConfig

TIME_LIMIT_S = 20.0
_LEAVES_FILES = """
import os
def f(x):
    os.makedirs(f'/tmp/a{x}/b/c', exist_ok=True)
    for i in range(9):
        with open(f'/tmp/a{x}/{i}', 'w') as file:
            file.write('x' * 9999)
    os.symlink('/', f'/tmp/a{x}/b/root')
    return 2 * x
"""
_LEAVES_PROCESSES = """
import os, socket, time
def f(x):
    kept = [socket.socketpair() for _ in range(5)]
    if os.fork() == 0:
        os.setsid()
        time.sleep(99)
    return 2 * x
"""
_PROGRAMS = (
    ("def f(x):\n    return 2 * x", "returned"),
    ("def f(x):\n    return [str(x) * 999] * 9", "returned"),
    ("def f(x):\n    print('x' * 9999)\n    return None", "returned"),
    ("def f(x):\n    raise ValueError('x' * 999)", "raised"),
    ("def f(x):\n    return [1][x]", "raised"),
    ("import os\ndef f(x):\n    os._exit(3)", "exited"),
    ("def f(x):\n    return len(bytearray(30 << 20))", "returned"),
    ("def f(x)\n    return 2 * x", "syntax_error"),
    (_LEAVES_FILES, "returned"),
    (_LEAVES_PROCESSES, "returned"),
)
_LIMITED = ("import os\ndef f(x):\n    while True:\n        os.fork()", "process_limit")
_CALLS = [{"kind": "functional", "function": "f", "inputs": [x]} for x in (1, 2, 3)]
_ASSERTS = AssertProgram(functions=("f",), source="", groups=("assert f(1) == 2", "assert f(3) == 6"))


@dataclass(frozen=True, slots=True)
class State:
    """Resources of this process and its sandboxes. Memory in KiB, resident; of runners the largest."""

    host_kib: int
    runner_kib: int
    descriptors: int
    processes: int
    threads: int
    containers: int


def run_one(pool: SandboxPool, index: int) -> None:
    """Execute a program once; raise for an outcome other than the program's own."""
    if index % 50 == 7:
        records = pool.judge_asserts(_PROGRAMS[0][0], _ASSERTS, TIME_LIMIT_S)
        if [record["status"] for record in records] != ["passed", "passed"]:
            raise RuntimeError(f"execution {index}: asserts: {records!r:.300}")
        return
    source, status = _LIMITED if index % 100 == 99 else _PROGRAMS[index % len(_PROGRAMS)]
    records = pool.execute(source, _CALLS, TIME_LIMIT_S)
    if records[0]["status"] != status:
        raise RuntimeError(f"execution {index}: {records!r:.300} instead of {status}")


def state(kind: str) -> State:
    """Return the present state."""
    here = psutil.Process()
    processes = here.children(recursive=True)
    runners = [_resident_kib(pid) for pid in _runners(kind, processes)]
    return State(
        host_kib=here.memory_info().rss // 1024,
        runner_kib=max(runners, default=0),
        descriptors=here.num_fds(),
        processes=len(processes),
        threads=threading.active_count(),
        containers=len(_containers()) if kind == "docker" else 0,
    )


def _containers() -> list[str]:
    command = ["docker", "ps", "--all", "--quiet", "--filter", f"label=sdpo.incarnation={os.getpid()}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def _runners(kind: str, processes: list[psutil.Process]) -> list[int]:
    """Return the process ids, outside, of the sandboxes' PID 1."""
    if kind == "docker":
        names = _containers()
        command = ["docker", "inspect", "--format", "{{.State.Pid}}", *names]
        return (
            [int(pid) for pid in subprocess.run(command, capture_output=True, text=True).stdout.split()]
            if names
            else []
        )
    return [process.pid for process in processes if _number_inside(process.pid) == ["1"]]


def _number_inside(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/status") as file:
            numbers = next((line.split()[1:] for line in file if line.startswith("NSpid:")), [])
    except OSError:
        return []
    return numbers[-1:] if len(numbers) > 1 else []


def _resident_kib(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss // 1024)
    except psutil.NoSuchProcess:
        return 0


def growth(first: State, last: State, bound_kib: int) -> list[str]:
    """Return the resources that exceed their limits."""
    grown = []
    for name, before in asdict(first).items():
        allowed = bound_kib if name.endswith("_kib") else 0
        if (more := asdict(last)[name] - before) > allowed:
            grown.append(f"{name}: {before} -> {before + more}, allowed: +{allowed}")
    return grown


def soak(pool: SandboxPool, given: argparse.Namespace) -> list[str]:
    """Run all executions and print; return what has grown."""
    first: State | None = None
    began = time.monotonic()
    with ThreadPoolExecutor(given.threads) as threads:
        for done in range(0, given.executions, given.every):
            start = time.monotonic()
            for _ in threads.map(lambda i: run_one(pool, i), range(done, min(done + given.every, given.executions))):
                pass
            gc.collect()
            _settle(given.kind)
            now = state(given.kind)
            count = min(done + given.every, given.executions)
            if first is None and count >= given.executions / 10:
                first = now
            rate = (count - done) / (time.monotonic() - start)
            print(f"{count:>8} executions  {rate:6.1f}/s  {_words(asdict(now))}", flush=True)
    print(f"all in {time.monotonic() - began:.0f} s; {_words(dict(pool.counters))}")
    assert first is not None
    return growth(first, now, given.bound_kib)


def _settle(kind: str) -> None:
    """Wait until the sandboxes contain only the process that waits for the next execution."""
    deadline = time.monotonic() + 10
    before = -1
    while (count := len(psutil.Process().children(recursive=True))) != before and time.monotonic() < deadline:
        before = count
        time.sleep(0.5)


def _words(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value}" for name, value in values.items())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=5000)
    parser.add_argument("--kind", choices=("bubblewrap", "docker"), default="bubblewrap")
    parser.add_argument("--threads", type=int, default=1, help="and sandboxes")
    parser.add_argument("--bound-kib", type=int, default=8192)
    given = parser.parse_args()
    limits: dict[str, Any] = {"wall_time_s": 30.0, "memory_mib": 128, "max_processes": 16}
    sandbox = DockerSandbox(**limits) if given.kind == "docker" else BubblewrapSandbox(**limits)
    before = state(given.kind)
    pool = SandboxPool(EnvConfig(sandbox=sandbox, sandboxes_per_worker=given.threads), f"soak-{os.getpid()}", "env-0")
    try:
        grown = soak(pool, given)
    finally:
        pool.close()
    deadline = time.monotonic() + 10
    while (left := state(given.kind)).processes + left.containers > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    print(f"before: {_words(asdict(before))}\nclosed: {_words(asdict(left))}")
    if left.processes or left.containers:
        grown.append(f"after the end: {left.processes} processes, {left.containers} containers")
    if grown:
        sys.exit("grown: " + "; ".join(grown))
    print("nothing has grown")


if __name__ == "__main__":
    main()
