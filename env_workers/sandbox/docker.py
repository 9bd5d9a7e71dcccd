"""Containers of a Docker engine, each with a warm runner inside; under gVisor where the config says so.

No network, a read-only root, a small work folder in memory, no capability, no new privileges, a filter of system calls
(`seccomp.py`; not under gVisor), a user of its own, and limits that the kernel keeps even if the runner should fail to.
The container lives as long as its connection: without it the runner's stdin ends, the runner exits and the engine
removes the container.
"""

import contextlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from docker.errors import APIError, ImageNotFound
from docker.types import LogConfig, Mount, Ulimit

from env_workers.runner.bundle import boot_command
from env_workers.sandbox.attach import AttachStream
from env_workers.sandbox.base import SHARED_FOLDER_BYTES, Sandbox
from env_workers.sandbox.engine import (
    ENGINE_ERRORS,
    Containers,
    EngineFacts,
    address,
    connect,
    examine,
    no_image,
    unavailable,
)
from env_workers.sandbox.ownership import LIFETIME_S, labels
from env_workers.sandbox.packages import mounts
from env_workers.sandbox.packages import unavailable as no_folder
from env_workers.sandbox.seccomp import MACHINES, seccomp_filter
from sdpo.config import GvisorSandbox
from sdpo.errors import InfrastructureError, SandboxUnavailable

START_TIMEOUT_S = 30.0
STDERR_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 4.0
PYTHON = "python3"
RUNNER_MIB = 96
"""Memory of the runner and of the processes that it holds ready, beside what an execution and its files may take."""
RUNNER_PROCESSES = 8
GVISOR_MIB, GVISOR_PROCESSES = 160, 256
"""Memory and processes of gVisor's own kernel, which the limits of a container include."""
_UIDS = (2**30, 2**30 - 1)
_UIDS_OF_A_REMAPPED_USER = (10_000, 50_000)
_NO_IPC_OBJECTS = {"kernel.shmmni": "0", "kernel.msgmni": "0", "kernel.sem": "0 0 0 0", "fs.mqueue.queues_max": "0"}

_worked: set[Containers] = set()
"""Configs with which a container has started in this process: a later failure is an InfrastructureError."""


class DockerContainer(Sandbox):
    """A `Sandbox`. `owner` is "run-incarnation"; with `worker` it goes into the container's labels."""

    def __init__(self, config: Containers, owner: str = "", worker: str = "") -> None:
        super().__init__(config)
        self._config, self._owner, self._worker = config, owner, worker
        self._engine: Any = None
        self._container: str | None = None
        self._stream: AttachStream | None = None
        self._retire_at = 0.0

    def start(self) -> Mapping[str, Any]:
        """See `Sandbox.start`."""
        try:
            engine_facts, facts = self._start()
        except (SandboxUnavailable, InfrastructureError) as error:
            self.close()
            raise self._broken(error) from None
        except ENGINE_ERRORS as error:
            self.close()
            raise self._broken(self._explain(error)) from None
        _worked.add(self._config)
        return {
            "kind": self._config.kind,
            "engine": address(self._config),
            "engine_version": engine_facts.version,
            "image": self._config.image,
            "container": self._container,
            **facts,
        }

    @property
    def restart_reason(self) -> str | None:
        """See `Sandbox.restart_reason`."""
        return super().restart_reason or ("age" if time.monotonic() > self._retire_at else None)

    def close(self) -> None:
        """See `Sandbox.close`. Where the engine does not answer, the end of its stdin ends the container."""
        container, stream, engine = self._container, self._stream, self._engine
        self._container = self._stream = self._engine = self._channel = None
        if stream is not None:
            stream.close()
        if engine is not None:
            if container is not None:
                engine.timeout = CLOSE_TIMEOUT_S
                with contextlib.suppress(*ENGINE_ERRORS):
                    engine.remove_container(container, force=True, v=True)
            engine.close()

    def _start(self) -> tuple[EngineFacts, dict[str, Any]]:
        config, deadline = self._config, time.monotonic() + START_TIMEOUT_S
        engine_facts = examine(config, address(config))
        self._engine = engine = connect(config)
        first, count = _UIDS_OF_A_REMAPPED_USER if engine_facts.remaps_users else _UIDS
        uid = first + secrets.randbelow(count)
        self._container = engine.create_container(
            config.image,
            command=boot_command(PYTHON),
            entrypoint=[],
            user=f"{uid}:{uid}",
            hostname="sandbox",
            working_dir="/",
            stdin_open=True,
            stop_signal="SIGKILL",  # an engine that shuts down need not wait for PID 1, which ignores the rest
            labels=labels(self._owner, self._worker),
            host_config=engine.create_host_config(**host_options(config, uid)),
        )["Id"]
        self._stream = AttachStream(
            engine.attach_socket(self._container, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        )
        engine.start(self._container)
        self._retire_at = time.monotonic() + LIFETIME_S
        # Not under gVisor, whose own kernel answers system calls.
        own_kernel = isinstance(config, GvisorSandbox)
        filters = None if own_kernel else {machine: seccomp_filter(machine).hex() for machine in MACHINES}
        timeout_s = deadline - time.monotonic()
        try:
            return engine_facts, self._boot(
                self._stream, timeout_s, own_uid=not own_kernel, image_packages=True, filters=filters
            )
        except InfrastructureError as error:
            self._stream.read_rest(STDERR_TIMEOUT_S)
            complaint = " ".join(self._stream.complaint.split())[-500:]
            if not complaint:
                raise
            raise SandboxUnavailable(
                f"env.sandbox.image={self._config.image}: the runner does not start in it; Python 3.11 or newer is "
                f"needed ({error}: {complaint})"
            ) from None

    def _explain(self, error: BaseException) -> SandboxUnavailable:
        if isinstance(error, ImageNotFound):
            return no_image(self._config)
        if not isinstance(error, APIError):
            return unavailable(self._config, error)
        cause = " ".join(str(error.explanation or error).split())[:500]
        for folder in self._config.python_path:
            if folder in cause:
                return no_folder(folder, f"the Docker engine at {address(self._config)} refuses it: {cause}")
        return SandboxUnavailable(
            f"env.sandbox.kind={self._config.kind}: the Docker engine at {address(self._config)} refuses a container "
            f"of the image {self._config.image}: {cause}"
        )

    def _broken(self, error: SandboxUnavailable | InfrastructureError) -> SandboxUnavailable | InfrastructureError:
        return InfrastructureError(str(error)) if self._config in _worked else error


def host_options(config: Containers, uid: int) -> dict[str, Any]:
    """Return the options that limit a container."""
    memory_bytes = (config.memory_mib + config.disk_mib + RUNNER_MIB) * 2**20
    options: dict[str, Any] = {
        "network_mode": "none",
        "dns": ["127.0.0.1"],  # without it the host's resolver is copied in
        "dns_search": ["."],
        "read_only": True,
        "mounts": [_read_only(source, target) for source, target in mounts(config).items()],
        "tmpfs": _folders(config, uid),
        "ipc_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": memory_bytes,
        "memswap_limit": memory_bytes,
        "pids_limit": config.max_processes + RUNNER_PROCESSES,
        "nano_cpus": int(config.cpus * 1e9),
        "oom_score_adj": 500,
        "ulimits": [Ulimit(name=name, soft=0, hard=0) for name in ("core", "memlock", "msgqueue")],
        "sysctls": _NO_IPC_OBJECTS,
        "log_config": LogConfig(type="none"),
        "init": False,
        "auto_remove": True,
    }
    if not isinstance(config, GvisorSandbox):
        return {**options, "cgroupns": "private"}
    with_gvisor = dict.fromkeys(("mem_limit", "memswap_limit"), memory_bytes + GVISOR_MIB * 2**20)
    return {**options, **with_gvisor, "pids_limit": options["pids_limit"] + GVISOR_PROCESSES, "runtime": config.runtime}


def _folders(config: Containers, uid: int) -> dict[str, str]:
    """Return the folders in memory. The engine's own mount of the third would be one to write to."""
    owned = f"nr_inodes={config.max_files + 1},mode=0700,uid={uid},gid={uid}"
    return {
        "/tmp": f"rw,noexec,nosuid,nodev,size={config.disk_mib * 2**20},{owned}",
        "/dev/shm": f"rw,noexec,nosuid,nodev,size={SHARED_FOLDER_BYTES},{owned}",
        "/dev/mqueue": "ro,noexec,nosuid,nodev,size=4096,mode=0555",
    }


def _read_only(source: str, target: str) -> Mount:
    """Return a mount of that folder alone: older engines would mount file systems below it with their own rights."""
    mount = Mount(target, source, type="bind", read_only=True)
    mount["BindOptions"] = {"NonRecursive": True}
    return mount
