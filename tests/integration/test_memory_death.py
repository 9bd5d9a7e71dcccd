"""Ray's memory monitor ends an actor: what the run is told, in a Ray of its own whose monitor is strict."""

import json
import os
import subprocess
import sys

import psutil

EATS = """
import json, time
import ray
from orchestrator.cluster.ray_session import start_local_ray
from orchestrator.actors.fleet import ACTOR_FAILURES
from orchestrator.memory.deaths import lack_of_memory, line_of

class Eater:
    def eat(self):
        kept = []
        while True:
            kept.append(bytearray(b"x" * 2**26))
            time.sleep(0.02)

start_local_ray(num_cpus=2, include_dashboard=False)
eater = ray.remote(Eater).options(name="teacher-0", namespace="sdpo-test", max_restarts=0).remote()
try:
    ray.get(eater.eat.remote(), timeout=90)
except Exception as error:
    print("answer", json.dumps([isinstance(error, ACTOR_FAILURES), line_of(lack_of_memory(error), None)]))
ray.shutdown()
"""


def test_the_memory_monitor_of_ray_ends_an_actor() -> None:
    memory = psutil.virtual_memory()
    threshold = min(0.95, 1 - (memory.available - 2 * 2**30) / memory.total)
    strict = {"RAY_memory_usage_threshold": f"{threshold:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    run = subprocess.run(
        [sys.executable, "-c", EATS], env=os.environ | strict, capture_output=True, text=True, timeout=180, check=False
    )
    answers = [line for line in run.stdout.splitlines() if line.startswith("answer ")]
    assert len(answers) == 1, run.stderr[-2000:]
    is_replaced, line = json.loads(answers[0].removeprefix("answer "))
    assert is_replaced
    assert line.startswith("teacher-0 had not enough memory: Ray ended it because its node was full (")
    assert "keys that lower it: teacher.tokens_per_forward, " in line
