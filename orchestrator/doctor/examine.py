"""All checks of this machine, for a run or for none."""

from orchestrator.doctor.checks_cluster import cluster_check
from orchestrator.doctor.checks_gpu import gpu_check
from orchestrator.doctor.checks_machine import machine_checks
from orchestrator.doctor.checks_ray import ray_checks
from orchestrator.doctor.checks_run import run_check
from orchestrator.doctor.checks_sandbox import needed_only, sandbox_checks
from orchestrator.doctor.checks_software import software_check
from orchestrator.doctor.checks_tools import tools_check
from orchestrator.doctor.finding import Check, Finding, run_checks
from sdpo.config import RunConfig


def examine(config: RunConfig | None = None, *, full: bool = False, address: str | None = None) -> list[Finding]:
    """What was found; with `full` Ray is really started. Never raises for what is wrong with the machine.

    With `address` the Ray cluster there is looked at instead of this machine.
    """
    if address is not None:
        return run_checks([cluster_check(address, config)])
    needed = None if config is None else config.env.sandbox.kind
    return needed_only(run_checks(all_checks(config, full=full)), needed)


def all_checks(config: RunConfig | None, *, full: bool) -> list[Check]:
    """In the order in which they are shown."""
    extras = frozenset({"deepspeed"} if config is not None and config.learner.backend.startswith("zero") else ())
    return [
        software_check(extras),
        *machine_checks(config),
        gpu_check(config),
        *sandbox_checks(config),
        *ray_checks(full),
        tools_check(),
        *([] if config is None else [run_check(config)]),
    ]
