"""Starts the run's sandbox once on this machine before the run begins: one that cannot work is refused early."""

import os

from sdpo.config import RunConfig


def require_sandbox(config: RunConfig) -> None:
    """Start a sandbox of the run and run a known program in it, where env workers will run on this machine.

    With RAY_ADDRESS the cluster's nodes have the sandboxes, and each env worker tries its own when it starts. Raises
    `SandboxUnavailable` (no engine, no image, no user namespaces), or `InfrastructureError` where it broke.
    """
    if not config.samples or os.environ.get("RAY_ADDRESS"):
        return
    from env_workers.sandbox.pool import make_sandbox
    from env_workers.sandbox.renewable import RenewableSandbox

    sandbox = RenewableSandbox(lambda: make_sandbox(config.env, config.name, "trial"))
    try:
        sandbox.check()
    finally:
        sandbox.close()
