"""What is particular to Docker containers: their options, their owners, and what is left when something dies.

What they share with other kinds of sandbox is in test_sandbox_contract.py.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from env_workers.sandbox import docker as docker_sandbox
from env_workers.sandbox import janitor, ownership
from env_workers.sandbox.docker import DockerContainer
from env_workers.sandbox.engine import connect
from env_workers.sandbox.janitor import Janitor, reap
from env_workers.sandbox.pool import SandboxPool
from sdpo.config import DockerSandbox, EnvConfig, GvisorSandbox
from sdpo.errors import InfrastructureError, SandboxUnavailable
from tests.fixtures.private_engine import PrivateEngine
from tests.fixtures.processes import is_running
from tests.fixtures.sandbox import IMAGE, docker_engine, private_engine  # noqa: F401  fixtures

pytestmark = pytest.mark.usefixtures("docker_engine")

CONFIG = DockerSandbox(
    image=IMAGE, memory_mib=128, max_processes=16, wall_time_s=3.0, disk_mib=16, max_files=100, max_file_mib=8
)
DOUBLE = "def f(x):\n    return 2 * x"
GONE_WITHIN_S = 10.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    client = connect(CONFIG)
    yield client
    client.close()


@pytest.fixture(scope="module")
def container() -> Iterator[DockerContainer]:
    container = DockerContainer(CONFIG, owner="run-with-dashes-7", worker="env-3")
    container.start()
    yield container
    container.close()


def run(container: DockerContainer, program: str, x: Any = 0) -> Any:
    """The one record of `f(x)`."""
    return container.execute(program, [{"kind": "functional", "function": "f", "inputs": [x]}], 2.0)[0]


def observe(container: DockerContainer, program: str) -> Any:
    """What `f(0)` returns; it returns a repr."""
    record = run(container, program)
    assert record["status"] == "returned", record
    return eval(record["value"])


def ids(engine: Any, worker: str) -> list[str]:
    return [found["Id"] for found in engine.containers(all=True, filters={"label": f"{ownership.WORKER}={worker}"})]


def gone(engine: Any, worker: str) -> bool:
    deadline = time.monotonic() + GONE_WITHIN_S
    while ids(engine, worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not ids(engine, worker)


def test_the_engine_keeps_the_container_to_its_options(container: DockerContainer, engine: Any) -> None:
    [found] = ids(engine, "env-3")
    state = engine.inspect_container(found)
    host, config = state["HostConfig"], state["Config"]
    expected = {
        "NetworkMode": "none",
        "IpcMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": None,
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges:true"],
        "Binds": None,
        "Devices": None,
        "Memory": (128 + 16 + 96) * 2**20,
        "MemorySwap": (128 + 16 + 96) * 2**20,
        "OomKillDisable": False,
        "PidsLimit": 16 + 8,
        "NanoCpus": 10**9,
        "Init": False,
        "AutoRemove": True,
        "CgroupnsMode": "private",
    }
    assert {name: host[name] for name in expected} == expected
    assert host["LogConfig"]["Type"] == "none"
    assert config["Labels"][ownership.RUN] == "run-with-dashes"
    assert config["Labels"][ownership.INCARNATION] == "7"
    assert abs(float(config["Labels"][ownership.CREATED]) - time.time()) < 60
    assert config["OpenStdin"]
    assert config["StdinOnce"]


LOOK_AROUND = """\
import os, resource
def f(x):
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    mounts = [line.split() for line in open("/proc/self/mounts")]
    [(kind, options)] = [(m[2], set(m[3].split(","))) for m in mounts if m[1] == "/tmp"]
    mine = lambda m: "rw" in m[3].split(",") and os.access(m[1], os.W_OK) and m[1][:6] != "/proc/"
    writable = sorted(m[1] for m in mounts if mine(m))
    space_of = lambda path: (os.statvfs(path).f_files, os.statvfs(path).f_blocks * os.statvfs(path).f_frsize)
    return repr(dict(
        caps=[int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")],
        privileges=(status["NoNewPrivs"].strip(), status["Seccomp"].strip()),
        uid=os.getuid(), ids=set(os.getresuid() + os.getresgid()), groups=os.getgroups(),
        tmp=(kind, {"noexec", "nosuid", "nodev", "rw"} <= options, *space_of("/tmp")),
        mode=oct(os.stat("/tmp").st_mode & 0o777), writable=writable, left=os.listdir("/tmp"),
        shm=(space_of("/dev/shm"), os.listdir("/dev/shm")),
        processes=sorted(p for p in os.listdir("/proc") if p.isdigit())[:1],
        hosts=open("/etc/resolv.conf").read(), links=os.listdir("/sys/class/net"),
        environment=sorted(os.environ), mq=resource.getrlimit(resource.RLIMIT_MSGQUEUE),
    ))
"""


def test_the_container_looks_so_from_inside(container: DockerContainer) -> None:
    seen = observe(container, LOOK_AROUND)
    uid = seen.pop("uid")
    assert uid >= 2**30
    assert seen == {
        "caps": [0, 0, 0, 0],
        "privileges": ("1", "2"),
        "ids": {uid},
        "groups": [uid],
        "tmp": ("tmpfs", True, 101, 16 * 2**20),
        "mode": "0o700",
        "writable": ["/dev/shm", "/tmp"],
        "left": [],
        "shm": ((101, 2**20), []),
        "processes": ["1"],
        "hosts": "nameserver 127.0.0.1\n",
        "links": ["lo"],
        "environment": ["HOME", "LANG", "OMP_NUM_THREADS", "PATH", "PYTHONHASHSEED", "PYTHONUTF8"],
        "mq": (0, 0),
    }


def test_memory_that_the_kernel_ended_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_sandbox, "RUNNER_MIB", -80)  # the container has less than one execution may take
    container = DockerContainer(CONFIG, "run-1", "env-oom")
    container.start()
    assert run(container, "def f(x):\n    return len(bytearray(b'x') * (100 * 2**20))")["status"] == "memory_limit"
    assert container.restart_reason == "memory_limit"
    container.close()


WORKER = """\
import sys
from env_workers.sandbox.docker import DockerContainer
from sdpo.config import DockerSandbox
container = DockerContainer(DockerSandbox(wall_time_s=60.0), "run-1", "env-killed")
container.start()
print("started", flush=True)
container.execute("while True: pass", [{"kind": "stdin", "input": ""}], 50.0)
"""


def test_kill_9_of_a_worker_leaves_no_container(engine: Any) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "started\n"
    [found] = ids(engine, "env-killed")
    inside = engine.inspect_container(found)["State"]["Pid"]
    time.sleep(0.5)  # the program runs
    worker.kill()
    worker.wait(5)
    assert gone(engine, "env-killed")
    assert not is_running(inside)


def test_containers_and_descriptors_do_not_pile_up(engine: Any) -> None:
    num_fds = []
    for _ in range(3):
        container = DockerContainer(CONFIG, "run-1", "env-closed")
        container.start()
        container.close()
        container.close()
        num_fds.append(psutil.Process().num_fds())
    assert num_fds[2] <= num_fds[0]
    assert gone(engine, "env-closed")


def test_a_container_that_is_gone_is_an_infrastructure_error(engine: Any) -> None:
    container = DockerContainer(CONFIG, "run-1", "env-gone")
    container.start()
    engine.remove_container(ids(engine, "env-gone")[0], force=True)
    with pytest.raises(InfrastructureError, match="the container's stream"):
        run(container, DOUBLE)
    container.close()


def made(engine: Any, **labels: str) -> str:
    """A container that was made and never started, with the labels of this process but for `labels`."""
    own = ownership.labels("other-1", "env-orphan")
    return str(engine.create_container(IMAGE, labels={**own, **{f"sdpo.{k}": v for k, v in labels.items()}})["Id"])


def test_the_janitor_removes_orphans_and_nothing_else(engine: Any) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    living = f"{sleeper.pid}/{ownership._started(sleeper.pid)}"
    old = str(int(time.time() - ownership.FOREIGN_AGE_S - 60))
    kept = {
        made(engine),
        made(engine, process=living, created=old),
        made(engine, place="another boot"),
        made(engine, process="nonsense"),
    }
    dead = made(engine, process=f"{sleeper.pid}/1")  # its number was given to another process
    lost = made(engine, place="another boot", created=old)
    try:
        removed = set(reap(CONFIG))
        assert {dead, lost} <= removed
        assert not kept & removed
        sleeper.send_signal(signal.SIGKILL)  # a zombie until it is waited for: dead all the same
        watch = Janitor(CONFIG, period_s=0.2)
        deadline = time.monotonic() + 5
        while watch.num_reaped == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        watch.check()
        watch.close()
        assert len(set(ids(engine, "env-orphan")) & kept) == 3
    finally:
        sleeper.kill()
        sleeper.wait(5)
        for container in ids(engine, "env-orphan"):
            with contextlib.suppress(docker.errors.APIError):
                engine.remove_container(container, force=True)


def test_a_janitor_that_ended_is_an_error_and_an_engine_that_is_away_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Janitor(DockerSandbox(engine="unix:///nowhere/docker.sock"), period_s=0.05)
    deadline = time.monotonic() + 5
    while away.num_failed < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert away.num_failed >= 2
    away.check()
    away.close()
    monkeypatch.setattr(janitor, "reap", lambda config: 1 // 0)
    broken = Janitor(CONFIG)
    broken._thread.join(5)
    with pytest.raises(InfrastructureError, match="janitor of containers ended: ZeroDivisionError"):
        broken.check()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (DockerSandbox(engine="unix:///nowhere/docker.sock"), ["unix:///nowhere/docker.sock", "env.sandbox.engine"]),
        (DockerSandbox(image="sdpo-absent:1"), ["env.sandbox.image=sdpo-absent:1", "make env-image"]),
        (GvisorSandbox(image=IMAGE, runtime="absent"), ["env.sandbox.runtime=absent", "runc", "--add-runtime"]),
    ],
)
def test_what_never_worked_is_one_line_with_the_fix(config: Any, words: list[str]) -> None:
    with pytest.raises(SandboxUnavailable) as caught:
        DockerContainer(config).start()
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_an_image_without_python_is_named(engine: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    engine.import_image(str(tmp_path / "empty.tar"), repository="sdpo-empty", tag="1")
    try:
        with pytest.raises(SandboxUnavailable, match=r"of the image sdpo-empty:1: .*python3"):
            DockerContainer(DockerSandbox(image="sdpo-empty:1"), worker="env-empty").start()
        assert gone(engine, "env-empty")
    finally:
        engine.remove_image("sdpo-empty:1")


def test_an_engine_restart_is_an_infrastructure_error_and_then_over(private_engine: PrivateEngine) -> None:  # noqa: F811
    config = CONFIG.model_copy(update={"engine": private_engine.address})
    pool = SandboxPool(EnvConfig(sandbox=config), "run-1", "env-restart")
    call = {"kind": "functional", "function": "f", "inputs": [1]}
    try:
        assert pool.execute(DOUBLE, [call], 1.0)[0]["value"] == 2
        private_engine.stop()
        with pytest.raises(InfrastructureError, match="no Docker engine answers"):
            pool.execute(DOUBLE, [call], 1.0)
        private_engine.start()
        assert pool.execute(DOUBLE, [call], 1.0)[0]["value"] == 2
        assert private_engine.docker("ps", "--all", "--quiet").stdout.count("\n") == 1
    finally:
        pool.close()


def test_gvisor_runs_programs_on_a_kernel_of_its_own(private_engine: PrivateEngine) -> None:  # noqa: F811
    limits = CONFIG.model_dump(exclude={"kind", "engine"})
    container = DockerContainer(GvisorSandbox(**limits, engine=private_engine.address))
    container.start()
    try:
        assert run(container, DOUBLE, 21)["value"] == 42
        assert observe(container, "def f(x):\n    return repr(open('/proc/version').read())") != os.uname().version
        assert run(container, "def f(x):\n    while True: pass")["status"] == "timeout"
        assert run(container, "def f(x):\n    return len(bytearray(10**9))")["status"] == "memory_limit"
        forge = (
            "import os\ndef f(x):\n    fd = os.open('/proc/1/fd/1', os.O_WRONLY)\n"
            '    head = b\'{"ended":null,"lines":1,"oom":false}\'\n'
            '    body = b\'!{"status":"returned","value":1}\\n\'\n'
            "    sizes = len(head).to_bytes(4, 'big') + len(body).to_bytes(4, 'big')\n"
            "    os.write(fd, sizes + head + body)"
        )
        with pytest.raises(InfrastructureError, match="an answer to no request"):
            run(container, forge)
    finally:
        container.close()
