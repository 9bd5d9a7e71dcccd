"""Submit a run to a Ray cluster as a job, follow its log and end with its exit code.

    python deploy/submit.py --address http://HEAD:8265 examples/tinycoder.yaml dir=/shared/runs steps=100

Needs only `ray[default]`. The working directory is uploaded without the files that .rayignore and .gitignore name; of
this machine's environment only the variables named by --env are sent. Submitting the same run again resumes it.
"""

import argparse
import asyncio
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdpo.config import RunConfig  # noqa: E402
from sdpo.config.load import load_run_config  # noqa: E402
from sdpo.errors import ConfigError, InfrastructureError, SdpoError  # noqa: E402
from sdpo.secrets import hide_secrets, is_secret_name  # noqa: E402

STOPPED, INTERRUPTED = 130, 130
LOOK_EVERY_S = 1.0
HEAD_STARTS_S = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job to submit. The dashboard shows `entrypoint` and `metadata` to all its users."""

    entrypoint: str
    submission_id: str
    metadata: dict[str, str]
    runtime_env: dict[str, Any]


def make_job(arguments: argparse.Namespace) -> Job:
    """Return the job. Raises `ConfigError` for input that the cluster would refuse, before anything is sent."""
    working_dir = Path(arguments.working_dir).resolve()
    run_file = Path(arguments.run_file).resolve()
    if not run_file.is_relative_to(working_dir):
        raise ConfigError(f"{arguments.run_file}: allowed: a file in --working-dir, {working_dir}, which is uploaded")
    config = load_run_config(run_file, arguments.override)
    if "://" not in config.dir and not config.dir.startswith("/"):
        raise ConfigError(
            f"dir={config.dir}: is in the uploaded working directory, which Ray removes; allowed: an absolute path "
            "that the nodes of the driver and the learner share, or a URI"
        )
    command = ["python", "-m", "orchestrator", "train", str(run_file.relative_to(working_dir)), *arguments.override]
    stop_wait_s = arguments.stop_wait_s or longest_stop_s(config)
    return Job(
        entrypoint=shlex.join(command),
        submission_id=arguments.submission_id or f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}",
        metadata={"run": config.name, "dir": config.dir, "steps": str(config.steps)},
        runtime_env={
            "working_dir": str(working_dir),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(stop_wait_s)} | forwarded(arguments.env),
        },
    )


def longest_stop_s(config: RunConfig) -> int:
    """Return the seconds that a step and its checkpoint may take before a deadline of the run passes."""
    d = config.deadlines
    step_s = d.generate_s + d.environment_s + d.score_s + d.train_s * config.steps_per_batch + d.weights_s
    return int(step_s + 2 * d.checkpoint_s)


def forwarded(names: Sequence[str]) -> dict[str, str]:
    """Return the named environment variables. Raises `ConfigError` for one that is not set or a secret.

    Ray writes a job's variables into log files that the dashboard shows, and returns them through its API.
    """
    for name in names:
        if name not in os.environ:
            raise ConfigError(f"--env={name}: allowed: the name of a variable that is set here")
        if is_secret_name(name):
            raise ConfigError(
                f"--env={name}: looks like a secret, and a job's variables appear in the cluster's logs; allowed: "
                "other names; set secrets in the environment of `ray start` on the nodes (docs/jobs.md)"
            )
    return {name: os.environ[name] for name in names}


def connect(address: str | None) -> Any:
    """Return a `JobSubmissionClient`, with Ray's token if there is one. Raises `InfrastructureError`."""
    has_token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if has_token or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # read once, when Ray is imported
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    os.environ.update(no_proxy="*", NO_PROXY="*")  # this process asks the cluster only, which no proxy reaches
    where = hide_secrets(address or os.environ.get("RAY_ADDRESS") or "this machine")
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise InfrastructureError(
            f"the cluster at {where} requires its token: {str(error).splitlines()[0]}; "
            "set RAY_AUTH_TOKEN_PATH to a file that holds it, or RAY_AUTH_TOKEN"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InfrastructureError(f"no answer from {where}: {' '.join(str(error).split())}") from None


async def follow(client: Any, submission_id: str) -> None:
    """Print the job's log until the job has ended."""
    async for lines in client.tail_job_logs(submission_id):
        print(lines, end="", flush=True)


def wait(client: Any, submission_id: str) -> None:
    """Return when the job has ended, however long that takes."""
    while not client.get_job_status(submission_id).is_terminal():
        time.sleep(LOOK_EVERY_S)


def outcome(client: Any, submission_id: str) -> int:
    """Print in one line how the job ended; return its exit code."""
    info = client.get_job_info(submission_id)
    status, lines = info.status.value, (info.message or "").strip().splitlines()
    reason = "" if status == "SUCCEEDED" or not lines else f": {lines[-1]}"
    print(f"{submission_id}: {status}{reason}")
    if status == "SUCCEEDED":
        return 0
    code = STOPPED if status == "STOPPED" else int(info.driver_exit_code or 1)
    return code if code > 0 else 128 - code  # ended by a signal


def send(client: Any, job: Job) -> None:
    """Submit the job, again while a head that has just started refuses. Raises `InfrastructureError`."""
    deadline_s = time.monotonic() + HEAD_STARTS_S
    while True:
        try:
            client.submit_job(
                entrypoint=job.entrypoint,
                submission_id=job.submission_id,
                runtime_env=job.runtime_env,
                metadata=job.metadata,
            )
            return
        except (RuntimeError, ValueError) as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline_s:
                reason = hide_secrets(str(error).strip().splitlines()[-1])
                raise InfrastructureError(f"not submitted: {reason}") from None
        time.sleep(LOOK_EVERY_S)


def submit(arguments: argparse.Namespace) -> int:
    """Submit the job and wait as the mode says; return the exit code. Raises `SdpoError`."""
    job = make_job(arguments)
    client = connect(arguments.address)
    send(client, job)
    print(f"submitted: {job.submission_id}", flush=True)
    if arguments.mode == "no-wait":
        return 0
    try:
        if arguments.mode == "follow":
            asyncio.run(follow(client, job.submission_id))
        wait(client, job.submission_id)
    except KeyboardInterrupt:
        print(f"the job continues; to end it: ray job stop {job.submission_id}", file=sys.stderr)
        return INTERRUPTED
    return outcome(client, job.submission_id)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="submit.py", description="Submit a run to a Ray cluster as a job.")
    parser.add_argument("run_file", metavar="RUN.yaml")
    parser.add_argument("override", nargs="*", metavar="key=value")
    parser.add_argument("--address", help="the dashboard, http://HEAD:8265; default: RAY_ADDRESS")
    parser.add_argument("--working-dir", default=".", help="uploaded; the run starts there (default: this folder)")
    parser.add_argument("--submission-id", help="the job's name; default: the run's name and the time")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="KEY",
        help="send this environment variable, which must not be a secret",
    )
    parser.add_argument(
        "--stop-wait-s",
        type=int,
        metavar="S",
        help="seconds for the run to finish its step and checkpoint after `ray job stop` (default: from deadlines)",
    )
    modes = parser.add_mutually_exclusive_group()
    for mode, words in (
        ("follow", "print the job's log until it ends (default)"),
        ("wait", "wait for the end without the log"),
        ("no-wait", "return at once"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, default="follow", help=words)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Return the job's exit code; 2 for input that is refused here, 1 if no cluster answers."""
    try:
        return submit(parser().parse_intermixed_args(argv))
    except SdpoError as error:
        print(f"submit.py: {hide_secrets(str(error))}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
