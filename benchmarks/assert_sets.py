"""Assert-style sets in real sandboxes: how many tasks proxies carry, and whether every reference solution passes.

    python -m benchmarks.assert_sets humaneval=HumanEval.jsonl.gz mbpp=sanitized-mbpp.json mbpp=mbpp.jsonl

Prints a table and what did not pass. Tasks that no proxy carries run in the open. Exit code 1 when one does not pass.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator

from env_workers.adapters import load_tasks_with
from env_workers.adapters.records import read_records
from env_workers.code.environment import CodeEnvironment
from env_workers.code.tests import UnsupportedAsserts, parse_tests
from env_workers.environment import Context, Reply
from env_workers.sandbox.pool import SandboxPool
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.types import Task, Verdict

LIMITS = BubblewrapSandbox(wall_time_s=60.0, cpu_time_s=60.0)
CONFIG = EnvConfig(allow_open_asserts=True, time_limit_s=30.0, sandbox=LIMITS)


def main(arguments: list[str]) -> int:
    """`arguments`: adapter=path, any number of them."""
    pool = SandboxPool(CONFIG, "benchmark", "assert-sets")
    print("| set | tasks | groups | not carried | references that pass | seconds | median ms |")
    print("|---|---|---|---|---|---|---|")
    failures = []
    try:
        environment = CodeEnvironment(Context(config=CONFIG, sandbox=pool))
        for argument in arguments:
            adapter, _, path = argument.partition("=")
            failures += _measure(environment, adapter, path)
    finally:
        pool.close()
    for task_id, verdict in failures:
        print(f"\n{task_id}: {verdict.kind}\n{verdict.feedback}")
    return 1 if failures else 0


def _measure(environment: CodeEnvironment, adapter: str, path: str) -> list[tuple[str, Verdict]]:
    solutions = dict(_solutions(adapter, path))
    tasks = load_tasks_with(adapter, path, "heldout", {"unsupported": "open"})
    times_s, failures, num_groups = [], [], 0
    for task in tasks:
        begin = time.monotonic()
        verdict = environment.judge(task, Reply(text=f"```python\n{solutions[task.id]}\n```"))
        times_s.append(time.monotonic() - begin)
        num_groups += verdict.details["num_tests"]
        if not verdict.success:
            failures.append((task.id, verdict))
    reasons = Counter(reason for task in tasks if (reason := _reason(task)))
    why = "; ".join(f"{count} {reason}" for reason, count in reasons.items())
    not_carried = f"{reasons.total()} ({why})" if reasons else "0"
    median_ms = 1000 * sorted(times_s)[len(times_s) // 2]
    passed = f"{len(tasks) - len(failures)} of {len(tasks)}"
    cells = (
        path.rpartition("/")[2],
        len(tasks),
        num_groups,
        not_carried,
        passed,
        f"{sum(times_s):.0f}",
        f"{median_ms:.0f}",
    )
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return failures


def _solutions(adapter: str, path: str) -> Iterator[tuple[str, str]]:
    for _, record in read_records(path, {}):
        if adapter == "humaneval":
            yield record["task_id"], record["prompt"] + record["canonical_solution"]
        else:
            yield f"mbpp-{record['task_id']}", record["code"].replace("\r\n", "\n")


def _reason(task: Task) -> str | None:
    """What a proxy would not carry of a task that runs in the open."""
    (test,) = task.payload["tests"]
    closed = {key: value for key, value in test.items() if key != "open"}
    try:
        parse_tests(Task(id=task.id, messages=(), environment=task.environment, payload={"tests": [closed]}))
    except UnsupportedAsserts as error:
        return error.reason
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
