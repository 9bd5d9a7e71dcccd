"""An actor that does not see the run directory. Prints what Ray makes of its repr; ends when its input is closed."""

import json
import logging
import sys

import ray

from sdpo.logs import set_up_logging

log = logging.getLogger("env_workers.far")


class Far:
    """Stands for any actor of a run."""

    def __init__(self) -> None:
        set_up_logging(ray.get_runtime_context().get_actor_name())
        self._judged = 0

    def __repr__(self) -> str:
        return f"env-7 judging {self._judged}" if self._judged else "env-7"

    def judge(self) -> None:
        self._judged += 1
        log.info("judged %d", self._judged, extra={"task": "t/1", "step": self._judged})

    def fail(self) -> None:
        raise ValueError("no such task")


def main() -> None:
    """Join the cluster of RAY_ADDRESS."""
    ray.init(namespace="far-1", log_to_driver=False)
    far = ray.remote(Far).options(name="env-7", num_cpus=0).remote()
    ray.get([far.judge.remote() for _ in range(3)], timeout=200)
    try:
        ray.get(far.fail.remote(), timeout=200)
    except ValueError as error:
        print(json.dumps({"failure": str(error)}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
