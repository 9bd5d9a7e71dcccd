"""Compare executions of MBPP-sized programs (three tests each) with a process per test and a container per program.

    python -m benchmarks.executions OUT.json [--seconds 5] [--core N] [--mbpp FILE] [--kinds bubblewrap docker]

Ways, all in one run, one after the other, each program in turn until the time is over:
- `<kind> functional`, `<kind> asserts`: a verdict of the code environment on a warm sandbox of that kind;
- `process per test`: from a bare parent (nothing imported but multiprocessing), a forked process for every test that
  runs the program and sends the value back through a pipe; `interpreter per test`: a fresh `python -I -S` instead;
- `docker run`: a fresh container for every program with its three asserts.
Everything but the Docker engine is pinned to one core, containers too (`docker update --cpuset-cpus`): "per second" is
per core. What the engine (dockerd, containerd, shims) takes elsewhere is reported as engine_cpu_ms a program; every
engine on the machine counts, and the helpers of containers that end meanwhile (`docker run`) do not.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil

from benchmarks.small_programs import Program, mbpp_programs, own_programs
from env_workers.code.environment import CodeEnvironment
from env_workers.environment import Context, Reply
from env_workers.sandbox.pool import SandboxPool
from sdpo.config import BubblewrapSandbox, DockerSandbox, EnvConfig
from sdpo.types import Task, Verdict

IMAGE = "sdpo-env:latest"
OWNER = "benchmark-executions"
TARGETS = {"process per test": 4.0, "docker run": 100.0}
MAX_CONTAINERS = 8
ENGINE_PROCESSES = ("dockerd", "containerd", "containerd-shim")
Way = Callable[[Program], None]


@contextmanager
def sandboxed(kind: str, form: str, core: int) -> Iterator[Way]:
    """Verdicts of the code environment on one warm sandbox."""
    sandbox = DockerSandbox(image=IMAGE) if kind == "docker" else BubblewrapSandbox()
    config = EnvConfig(sandbox=sandbox)
    pool = SandboxPool(config, f"{OWNER}-{os.getpid()}", "env-0")
    environment = CodeEnvironment(Context(config=config, sandbox=pool))

    def judge(program: Program) -> None:
        reply = Reply(text=f"```python\n{program.source}\n```")
        verdict = environment.open(task_of(program, form)).step(reply)
        if not isinstance(verdict, Verdict) or not verdict.success:
            raise RuntimeError(f"{kind} {form}: a right program was refused: {verdict}\n{program.source}")

    try:
        judge(own_programs()[0])
        if kind == "docker":
            pin_containers(core)
        yield judge
    finally:
        pool.close()


def task_of(program: Program, form: str) -> Task:
    """Return the program's tests in one of both forms."""
    tests: list[dict[str, Any]] = [{"kind": "asserts", "functions": [program.function], "asserts": program.asserts}]
    if form == "functional":
        tests = [
            {"kind": "functional", "function": program.function, "inputs": list(arguments), "expected": expected}
            for arguments, expected in program.tests
        ]
    return Task(id="benchmark", messages=(), environment="code", payload={"tests": tests})


def pin_containers(core: int) -> None:
    """Pin every container of this process's sandboxes to one core."""
    command = ["docker", "ps", "--quiet", "--filter", f"label=sdpo.incarnation={os.getpid()}"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if not names:
        raise RuntimeError("no container of this benchmark was found")
    subprocess.run(["docker", "update", "--cpuset-cpus", str(core), *names], check=True, capture_output=True)


_BARE_PARENT = """
import json, multiprocessing, sys, time
def run(source, function, arguments, pipe):
    namespace = {}
    exec(source, namespace)
    pipe.send(namespace[function](*arguments))
def main():
    context = multiprocessing.get_context("fork")
    for line in sys.stdin:
        program = json.loads(line)
        for text in program["tests"]:
            arguments, expected = eval(text)
            ours, theirs = context.Pipe(False)
            process = context.Process(target=run, args=(program["source"], program["function"], arguments, theirs))
            process.start()
            theirs.close()
            if not ours.poll(5) or ours.recv() != expected:
                sys.exit("a right program was refused")
            process.join(5)
            ours.close()
        print("done", flush=True)
main()
"""


@contextmanager
def process_per_test() -> Iterator[Way]:
    """Fork a process for every test from a bare parent."""
    parent = subprocess.Popen(
        [sys.executable, "-I", "-c", _BARE_PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    sender, receiver = parent.stdin, parent.stdout

    def run(program: Program) -> None:
        tests = [repr(test) for test in program.tests]
        sender.write(json.dumps({"source": program.source, "function": program.function, "tests": tests}) + "\n")
        sender.flush()
        if receiver.readline() != "done\n":
            raise RuntimeError("the bare parent ended")

    try:
        yield run
    finally:
        sender.close()
        parent.wait(10)
        receiver.close()


@contextmanager
def interpreter_per_test() -> Iterator[Way]:
    """Start a fresh interpreter for every test."""

    def run(program: Program) -> None:
        for text in program.asserts:
            command = [sys.executable, "-I", "-S", "-c", f"{program.source}\n{text}"]
            subprocess.run(command, check=True, timeout=10, stdin=subprocess.DEVNULL)

    yield run


@contextmanager
def docker_run(core: int) -> Iterator[Way]:
    """Start a fresh container for every program."""
    options = [
        "--rm",
        "--network",
        "none",
        "--cap-drop",
        "ALL",
        "--read-only",
        "--memory",
        "512m",
        "--pids-limit",
        "32",
    ]
    command = ["docker", "run", *options, "--cpuset-cpus", str(core), IMAGE, "python3", "-I", "-S", "-c"]

    def run(program: Program) -> None:
        source = "\n".join([program.source, *program.asserts])
        subprocess.run([*command, source], check=True, timeout=60, stdin=subprocess.DEVNULL)

    yield run


def measure(way: Way, programs: list[Program], seconds: float, most: int | None = None) -> dict[str, Any]:
    """Return programs per second, and the time of one."""
    for program in programs[:2]:
        way(program)
    latencies_s: list[float] = []
    engine_s, began = engine_cpu_s(), time.perf_counter()
    for program in cycle(programs):
        start = time.perf_counter()
        way(program)
        now = time.perf_counter()
        latencies_s.append(now - start)
        if now - began >= seconds or len(latencies_s) == most:
            break
    elapsed_s = time.perf_counter() - began
    latencies_s.sort()
    return {
        "programs": len(latencies_s),
        "per_second": round(len(latencies_s) / elapsed_s, 2),
        "median_ms": round(1000 * statistics.median(latencies_s), 3),
        "p99_ms": round(1000 * latencies_s[min(len(latencies_s) - 1, int(0.99 * len(latencies_s)))], 3),
        "engine_cpu_ms": round(1000 * spent_s(engine_s, engine_cpu_s()) / len(latencies_s), 3),
    }


def engine_cpu_s() -> dict[int, float]:
    """Return the CPU seconds of each of the Docker engine's own processes until now, by process id."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        if (process.info["name"] or "").startswith(ENGINE_PROCESSES) and process.info["cpu_times"]:
            found[process.pid] = process.info["cpu_times"].user + process.info["cpu_times"].system
    return found


def spent_s(before: dict[int, float], after: dict[int, float]) -> float:
    """Return the CPU seconds of the processes that ran all the time, without helpers of containers that have ended."""
    return sum(after[pid] - before[pid] for pid in before if pid in after)


def compare(programs: list[Program], kinds: list[str], seconds: float, core: int) -> dict[str, Any]:
    """Measure every method in turn."""
    found: dict[str, Any] = {}

    def take(name: str, context: Any, most: int | None = None) -> None:
        with context as way:
            found[name] = measure(way, programs, seconds, most)
        print(json.dumps({"way": name} | found[name]), flush=True)

    take("process per test", process_per_test())
    take("interpreter per test", interpreter_per_test())
    for kind in kinds:
        for form in ("functional", "asserts"):
            take(f"{kind} {form}", sandboxed(kind, form, core))
    if "docker" in kinds:
        take("docker run", docker_run(core), MAX_CONTAINERS)
    return found


def ratios(ways: dict[str, Any]) -> dict[str, float]:
    """Return the ratios of each sandbox's programs per second to those of each other method."""
    others = ("process per test", "interpreter per test", "docker run")
    return {
        f"{ours} / {other}": round(ways[ours]["per_second"] / ways[other]["per_second"], 2)
        for ours in ways
        for other in others
        if ours not in others and other in ways
    }


def main() -> None:
    """Measure, write OUT.json, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--mbpp", type=Path, help="MBPP's file; default: twenty programs like MBPP's")
    parser.add_argument("--kinds", nargs="+", choices=("bubblewrap", "docker"), default=["bubblewrap", "docker"])
    given = parser.parse_args()
    programs = mbpp_programs(given.mbpp) if given.mbpp else own_programs()
    load = round(os.getloadavg()[0], 2)
    os.sched_setaffinity(0, {given.core})
    ways = compare(programs, given.kinds, given.seconds, given.core)
    result = {
        "machine": {
            "cpus": os.cpu_count(),
            "core": given.core,
            "python": sys.version.split()[0],
            "load_at_start": load,
        },
        "programs": len(programs),
        "source": given.mbpp.name if given.mbpp else "own",
        "ways": ways,
        "ratios": ratios(ways),
        "targets": {f"over {other}": least for other, least in TARGETS.items()},
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ratios"], indent=1))


if __name__ == "__main__":
    main()
