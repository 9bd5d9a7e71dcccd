"""Asks a run to stop from another process: through its directory, or through its actor `orchestrator`."""

from typing import Any

from orchestrator.cluster.connect import ray_connection
from orchestrator.cluster.namespace import parse_namespace, run_namespace
from orchestrator.cluster.ray_address import gcs_of
from orchestrator.control.control_actor import NAME
from orchestrator.control.stop_file import StopFile
from orchestrator.run_dir.remote_dir import origin_of, reading_copy
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.run_layout import CONFIG


def stop_in_folder(run_dir: str, now: bool, timeout_s: float) -> None:
    """Stop the run of a directory by its stop file; a run in an object store through the cluster that it names.

    Raises `ConfigError` for another folder, `InfrastructureError` if no run acknowledges the request in time.
    """
    folder = reading_copy(run_dir)
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{run_dir}: allowed: a run directory, or the name of a run together with --address")
    if origin_of(folder):
        stop_in_cluster(gcs_of(folder, run_dir), folder.name, now, timeout_s)
        return
    if now:
        raise ConfigError("--now: allowed: with --address")
    StopFile(folder).ask(timeout_s)


def stop_in_cluster(address: str, run: str, now: bool, timeout_s: float) -> None:
    """Stop a run by its actor. Raises `ConfigError` for an unknown run, `InfrastructureError` without an answer."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    with ray_connection(address):
        control_actor = find_control_actor(address, run)
        try:
            heard = ray.get(control_actor.stop.remote(now, timeout_s), timeout=timeout_s + 10)
        except (RayActorError, GetTimeoutError) as error:
            raise InfrastructureError(f"{run}: its actor {NAME} does not answer: {error}") from error
    if not heard:
        raise InfrastructureError(f"{run}: its driver did not acknowledge the stop request within {timeout_s:g} s")


def find_control_actor(address: str, run: str) -> Any:
    """Return the actor `orchestrator` of a run's newest incarnation; this process must be connected to the cluster.

    Raises `ConfigError` with the names of the active runs if this one is not active.
    """
    import ray

    found = list_runs()
    if run not in found:
        active = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"{run}: no such run is active in the cluster at {address}; active: {active}")
    return ray.get_actor(NAME, namespace=run_namespace(run, found[run]))


def list_runs() -> dict[str, int]:
    """Return the newest incarnation of every active run in the connected cluster, by name."""
    import ray

    runs = dict[str, int]()
    for actor in ray.util.list_named_actors(all_namespaces=True):
        of_run = parse_namespace(actor["namespace"])
        if actor["name"] == NAME and of_run is not None:
            run, incarnation = of_run
            runs[run] = max(runs.get(run, 0), incarnation)
    return runs
