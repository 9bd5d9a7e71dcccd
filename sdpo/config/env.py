"""Env workers: their sandboxes and limits, and when their pool grows."""

import os
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from sdpo.bounds import DAY_S, MIB_PER_PIB, Amount, Count, LargeCount, Probability, Seconds, SecondsOrZero, WholeMib
from sdpo.section import PATH_ERROR, IsPath, Section


class SandboxLimits(Section):
    """`env.sandbox`: limits of one execution and what it may import, the same in every kind of sandbox."""

    wall_time_s: Annotated[float, Ge(0.1), Le(30 * DAY_S)] = 5.0
    """Wall time of one execution (all tests of one program)."""
    cpu_time_s: Seconds | None = None
    """Processor time of one process of an execution (all tests of one program), rounded up to whole seconds; none: 2 s
    more than `wall_time_s`."""
    memory_mib: Annotated[int, Ge(32), Le(MIB_PER_PIB)] = 512
    """Memory of one execution, all its processes together; the interpreter takes about 10 MiB of it."""
    max_processes: Count = 32
    """Processes and threads of one execution."""
    max_open_files: Annotated[int, Ge(16), Le(2**20)] = 64
    """Open files of one process."""
    max_files: Annotated[int, Ge(16), Le(10**9)] = 4096
    """Files and folders in the work folder."""
    max_file_mib: WholeMib = 32
    """Size of one file."""
    disk_mib: WholeMib = 64
    """Size of the work folder, which is in memory."""
    max_output_bytes: Annotated[int, Ge(1024), Le(2**40)] = 65536
    """Bytes that one test may write or return; more where its expected output is longer."""
    max_executions: LargeCount = 2000
    """Executions after which a sandbox is replaced."""
    python_path: Annotated[tuple[str, ...], IsPath()] = ()
    """Folders of packages that programs may import beyond the standard library, by absolute path; they are mounted
    read-only, and must exist where the sandboxes run."""

    @field_validator("python_path")
    @classmethod
    def _are_absolute(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse a relative path, which would mean another folder on every machine, and the whole file system."""
        if any(not os.path.isabs(folder) or os.path.normpath(folder).strip("/") == "" for folder in folders):
            reason = "allowed: a list of absolute paths of folders that hold packages alone"
            raise PydanticCustomError(PATH_ERROR, "{reason}", {"reason": reason})
        return folders

    @property
    def processor_time_s(self) -> float:
        """Processor time of one process of an execution, in seconds."""
        return self.wall_time_s + 2.0 if self.cpu_time_s is None else self.cpu_time_s


class BubblewrapSandbox(SandboxLimits):
    """`env.sandbox`: Linux namespaces on the env worker's own machine."""

    kind: Literal["bubblewrap"] = "bubblewrap"
    """Namespaces through bubblewrap: pid, mount, network, ipc and user; no network, read-only root."""


class DockerSandbox(SandboxLimits):
    """`env.sandbox`: containers of a Docker engine."""

    kind: Literal["docker"] = "docker"
    """Warm containers: no network, read-only root, no capabilities, no new privileges, a user of its own."""
    image: str = "sdpo-env:latest"
    """Image with Python 3.11 or newer. The runner is sent to the container; it need not be in the image."""
    engine: str | None = None
    """Address of the Docker engine, for example unix:///var/run/docker.sock; none: DOCKER_HOST, or that socket."""
    cpus: Amount = 1.0
    """Processors that one container may use."""


class GvisorSandbox(SandboxLimits):
    """`env.sandbox`: containers under gVisor, where the Docker engine has that runtime."""

    kind: Literal["gvisor"] = "gvisor"
    """As docker, with gVisor's kernel between the program and the host's."""
    image: str = "sdpo-env:latest"
    """As for docker."""
    engine: str | None = None
    """As for docker."""
    cpus: Amount = 1.0
    """As for docker."""
    runtime: str = "runsc"
    """The name under which the Docker engine knows gVisor."""


SandboxKind = Annotated[BubblewrapSandbox | DockerSandbox | GvisorSandbox, Field(discriminator="kind")]


class EnvConfig(Section):
    """`env`: the actors that judge attempts."""

    target_wait_s: Seconds = 1.0
    """The pool grows when attempts wait longer than this for an env actor."""
    idle_s: Seconds = 60.0
    """The pool shrinks when it was larger than needed for this long."""
    sandboxes_per_worker: Count = 1
    """Warm sandboxes of one env actor: attempts that it judges at one time."""
    sandbox: SandboxKind = BubblewrapSandbox()
    """Where programs run, and within which limits."""
    time_limit_s: Seconds = 1.0
    """Wall time of one test of a program."""
    feedback: Literal["none", "outcome", "rich"] = "rich"
    """How much of the environment's feedback is used: nothing, the kind in one line, or all of it."""
    max_feedback_chars: Annotated[int, Ge(100), Le(10**9)] = 2000
    """Longest feedback; of a longer one head and tail are used."""
    max_turns: Count = 8
    """Turns of the model in one attempt, for environments with several (docs/multi-turn.md)."""
    attempt_s: Seconds = 900.0
    """Time of an attempt with several turns, from the end of its first turn; then it is judged as it is."""
    code: Annotated[tuple[str, ...], IsPath()] = ()
    """Python files and packages of yours (environments, adapters), by path; they are sent to the env workers."""
    allow_open_asserts: bool = False
    """Run assert-style tests that a proxy cannot carry (see docs/environments.md) in the program's own process, where
    the program can read and forge them; otherwise such tasks are refused."""
    max_attempts: Annotated[int, Gt(0), Le(100)] = 3
    """How often an attempt is run again after an infrastructure error before it is dropped and counted."""
    retry_backoff_s: SecondsOrZero = 0.5
    """Pause before an attempt is run again; doubled each time."""
    max_dropped_fraction: Probability = 0.2
    """The run stops when more than this share of a batch's attempts was dropped."""

    @field_validator("feedback", mode="before")
    @classmethod
    def _none_is_a_word(cls, value: Any) -> Any:
        """Read an unquoted none of a run file, which is null elsewhere, as the word."""
        return "none" if value is None else value
