"""All checks of this machine, with or without a run, or of a cluster."""

from orchestrator.commands.doctor.cluster import cluster_check
from orchestrator.commands.doctor.finding import Check, Finding, run_checks
from orchestrator.commands.doctor.gpu import gpu_check
from orchestrator.commands.doctor.local_ray import ray_checks
from orchestrator.commands.doctor.machine import machine_checks
from orchestrator.commands.doctor.packages import packages_checks
from orchestrator.commands.doctor.run import run_check
from orchestrator.commands.doctor.sandbox import needed_only, sandbox_checks
from orchestrator.commands.doctor.software import software_check
from orchestrator.commands.doctor.tools import tools_check
from sdpo.config import RunConfig


def examine(config: RunConfig | None = None, *, full: bool = False, address: str | None = None) -> list[Finding]:
    """Return the findings. Problems of the machine are findings and never raised.

    `full`: also start Ray. `address`: look at the Ray cluster there instead of this machine.
    """
    if address is not None:
        return run_checks([cluster_check(address, config)])
    needed = None if config is None else config.env.sandbox.kind
    return needed_only(run_checks(all_checks(config, full=full)), needed)


def all_checks(config: RunConfig | None, *, full: bool) -> list[Check]:
    """Return the checks of this machine in the order in which their findings are shown."""
    return [
        software_check(config),
        *machine_checks(config),
        gpu_check(config),
        *sandbox_checks(config),
        *ray_checks(full),
        tools_check(),
        *([] if config is None else [*packages_checks(config), run_check(config)]),
    ]
