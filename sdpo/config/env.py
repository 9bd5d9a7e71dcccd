"""Env workers: their sandboxes and limits, and when their pool grows."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from sdpo.section import IsPath, Section


class SandboxLimits(Section):
    """`env.sandbox`: limits of one execution, the same in every kind of sandbox."""

    wall_time_s: float = Field(default=5.0, gt=0)
    """Wall time of one execution (all tests of one program)."""
    cpu_time_s: float | None = Field(default=None, gt=0)
    """Processor time of one process of an execution (all tests of one program), rounded up to whole seconds; none: 2 s
    more than `wall_time_s`."""
    memory_mib: int = Field(default=512, gt=0)
    """Memory of one execution, all its processes together."""
    max_processes: int = Field(default=32, gt=0)
    """Processes and threads of one execution."""
    max_open_files: int = Field(default=64, ge=16)
    """Open files of one process."""
    max_files: int = Field(default=4096, gt=0)
    """Files and folders in the work folder."""
    max_file_mib: int = Field(default=32, gt=0)
    """Size of one file."""
    disk_mib: int = Field(default=64, gt=0)
    """Size of the work folder, which is in memory."""
    max_output_bytes: int = Field(default=65536, gt=0)
    """Bytes that one test may write or return; more where its expected output is longer."""
    max_executions: int = Field(default=2000, gt=0)
    """Executions after which a sandbox is replaced."""

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
    cpus: float = Field(default=1.0, gt=0)
    """Processors that one container may use."""


class GvisorSandbox(SandboxLimits):
    """`env.sandbox`: containers under gVisor, where the Docker engine has that runtime."""

    kind: Literal["gvisor"] = "gvisor"
    """As docker, with gVisor's kernel between the program and the host's."""
    image: str = "sdpo-env:latest"
    """As for docker."""
    engine: str | None = None
    """As for docker."""
    cpus: float = Field(default=1.0, gt=0)
    """As for docker."""
    runtime: str = "runsc"
    """The name under which the Docker engine knows gVisor."""


SandboxKind = Annotated[BubblewrapSandbox | DockerSandbox | GvisorSandbox, Field(discriminator="kind")]


class EnvConfig(Section):
    """`env`: the actors that judge attempts."""

    target_wait_s: float = Field(default=1.0, gt=0)
    """The pool grows when attempts wait longer than this for an env actor."""
    idle_s: float = Field(default=60.0, gt=0)
    """The pool shrinks when it was larger than needed for this long."""
    sandboxes_per_worker: int = Field(default=1, gt=0)
    """Warm sandboxes of one env actor: attempts that it judges at one time."""
    sandbox: SandboxKind = BubblewrapSandbox()
    """Where programs run, and within which limits."""
    time_limit_s: float = Field(default=1.0, gt=0)
    """Wall time of one test of a program."""
    feedback: Literal["none", "outcome", "rich"] = "rich"
    """How much of the environment's feedback is used: nothing, the kind in one line, or all of it."""
    max_feedback_chars: int = Field(default=2000, ge=100)
    """Longest feedback; of a longer one head and tail are used."""
    max_turns: int = Field(default=8, gt=0)
    """Turns of the model in one attempt, for environments with several (docs/multi-turn.md)."""
    attempt_s: float = Field(default=900.0, gt=0)
    """Time of an attempt with several turns, from the end of its first turn; then it is judged as it is."""
    code: Annotated[tuple[str, ...], IsPath()] = ()
    """Python files and packages of yours (environments, adapters), by path; they are sent to the env workers."""
    allow_open_asserts: bool = False
    """Run assert-style tests that a proxy cannot carry (see docs/environments.md) in the program's own process, where
    the program can read and forge them; otherwise such tasks are refused."""
    max_attempts: int = Field(default=3, gt=0)
    """How often an attempt is run again after an infrastructure error before it is dropped and counted."""
    retry_backoff_s: float = Field(default=0.5, ge=0)
    """Pause before an attempt is run again; doubled each time."""
    max_dropped_fraction: float = Field(default=0.2, ge=0, le=1)
    """The run stops when more than this share of a batch's attempts was dropped."""

    @field_validator("feedback", mode="before")
    @classmethod
    def _none_is_a_word(cls, value: Any) -> Any:
        """Read an unquoted none of a run file, which is null elsewhere, as the word."""
        return "none" if value is None else value
