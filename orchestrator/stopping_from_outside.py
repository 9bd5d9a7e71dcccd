"""Asking a run of another process to stop: through its directory, or through its cluster's actor `orchestrator`."""

from typing import Any

from orchestrator.cluster import joined
from orchestrator.front import NAME
from orchestrator.ray_address import gcs_of
from orchestrator.remote_dir import reading_copy
from orchestrator.stop_file import StopFile
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.storage import is_uri


def stop_in_folder(run_dir: str, now: bool, timeout_s: float) -> None:
    """Through the run directory; of a URI through the cluster that it names.

    Raises `ConfigError` if it is none, `InfrastructureError` if no run hears it.
    """
    folder = reading_copy(run_dir)
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"{run_dir}: allowed: a run directory, or the name of a run together with --address")
    if is_uri(run_dir):
        stop_in_cluster(gcs_of(folder, run_dir), folder.name, now, timeout_s)
        return
    if now:
        raise ConfigError("--now: allowed: with --address")
    StopFile(folder).ask(timeout_s)


def stop_in_cluster(address: str, run: str, now: bool, timeout_s: float) -> None:
    """Through the run's actor. Raises `ConfigError` if no such run is there, `InfrastructureError` if it is deaf."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    with joined(address):
        front = find_front(address, run)
        try:
            heard = ray.get(front.stop.remote(now, timeout_s), timeout=timeout_s + 10)
        except (RayActorError, GetTimeoutError) as error:
            raise InfrastructureError(f"{run}: its actor {NAME} does not answer: {error}") from error
    if not heard:
        raise InfrastructureError(f"{run}: its driver did not hear the stop within {timeout_s:g} s")


def find_front(address: str, run: str) -> Any:
    """The handle of a run's actor `orchestrator`, of its newest incarnation; this process has joined the cluster.

    Raises `ConfigError` that names the runs that are there if this one is not.
    """
    import ray

    found = list_runs()
    if run not in found:
        there = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"{run}: no such run is alive in the cluster at {address}; alive: {there}")
    return ray.get_actor(NAME, namespace=f"{run}-{found[run]}")


def list_runs() -> dict[str, int]:
    """The runs that are alive in the cluster that this process has joined: name -> newest incarnation."""
    import ray

    runs = dict[str, int]()
    for actor in ray.util.list_named_actors(all_namespaces=True):
        run, _, incarnation = actor["namespace"].rpartition("-")
        if actor["name"] == NAME and run and incarnation.isdigit():
            runs[run] = max(runs.get(run, 0), int(incarnation))
    return runs
