"""An env worker killed with -9, as a Ray actor in the middle of an execution too: nothing is left. And other users."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import ray

from env_workers.environment import Reply
from env_workers.worker import EnvWorker
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.types import Task
from tests.fixtures.processes import descendants, gone

ROOT = Path(__file__).resolve().parents[2]
TESTS = [{"kind": "functional", "function": "f", "inputs": [3], "expected": 6}]
DOUBLE = Task(id="double", messages=(), environment="code", payload={"tests": TESTS, "time_limit_s": 60.0})
RIGHT = Reply(text="```python\ndef f(x):\n    return 2 * x\n```")
ENDLESS = Reply(text="```python\nimport os\ndef f(x):\n    os.fork()\n    while True: pass\n```")


def sandboxed(pid: int) -> list[psutil.Process]:
    """Every process under the env worker `pid`: bwrap, PID 1 of its sandbox and the programs in it."""
    return descendants(pid)


def wait_for(count: int, pid: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 20
    while len(found := sandboxed(pid)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) >= count
    return found


@pytest.mark.usefixtures("ray_cluster")
def test_kill_9_of_a_ray_actor_leaves_nothing() -> None:
    config = EnvConfig(sandbox=BubblewrapSandbox(wall_time_s=60.0))
    actor = ray.remote(num_cpus=0)(EnvWorker).remote(config, "env-0", "a-run")
    facts = ray.get(actor.ready.remote(), timeout=60)
    assert (facts["owner"], facts["sandbox"]["kind"]) == ("a-run", "bubblewrap")
    assert ray.get(actor.step.remote("right", DOUBLE, (), RIGHT), timeout=60).reward == 1.0
    running = actor.step.remote("endless", DOUBLE, (), ENDLESS)
    processes = wait_for(4, facts["pid"])
    os.kill(facts["pid"], signal.SIGKILL)
    assert gone(processes) == []
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(running, timeout=30)


def test_kill_9_of_an_idle_worker_leaves_nothing() -> None:
    code = (
        "import time\nfrom env_workers.worker import EnvWorker\nfrom sdpo.config import EnvConfig\n"
        "worker = EnvWorker(EnvConfig(), 'env-0')\nprint(worker.ready()['pid'], flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        processes = wait_for(2, pid)
        process.kill()
    assert gone(processes) == []


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that any user can read, with this project's packages and what they need to make a sandbox."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for package in ("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "numpy"):
            spec = find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            shutil.copytree(Path(spec.origin).parent, folder / package)
            libraries = Path(spec.origin).parents[1] / f"{package}.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, folder / libraries.name)
        extensions = find_spec("typing_extensions")
        assert extensions is not None
        shutil.copy(str(extensions.origin), folder)
        for package in ("sdpo", "env_workers"):
            shutil.copytree(ROOT / package, folder / package)
        yield folder


def test_an_ordinary_user_can_use_it(public_folder: Path) -> None:
    """Root runs this test as nobody, with the system's interpreter where it is of the same version."""
    python = sys.executable
    as_nobody = {}
    if os.geteuid() == 0:
        python = "/usr/bin/python3"
        version = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
        if not os.path.exists(python) or subprocess.run([python, "-c", version], check=False).returncode:
            pytest.skip("the only interpreter of this version belongs to root")
        as_nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    code = (
        "from env_workers.sandbox.bubblewrap import Bubblewrap\nfrom sdpo.config import BubblewrapSandbox\n"
        "sandbox = Bubblewrap(BubblewrapSandbox(max_processes=16))\nprint(sandbox.start())\n"
        "calls = [{'kind': 'functional', 'function': 'f', 'inputs': [3]}]\n"
        "for body in ('return 2 * x', 'while True: os.fork()'):\n"
        "    print(sandbox.execute(f'import os\\ndef f(x):\\n    {body}', calls, 2.0))\n"
        "sandbox.close()"
    )
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=public_folder,
        env={"PATH": os.environ["PATH"]},
        check=False,
        **as_nobody,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr
    _, double, bomb = done.stdout.splitlines()
    assert double == "[{'status': 'returned', 'value': 6}]"
    assert "process_limit" in bomb or "BlockingIOError" in bomb
