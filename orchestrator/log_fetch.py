"""Lines of actors that did not see the run directory: Ray keeps their stderr on their nodes and hands it out."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.log_view import events_of
from orchestrator.ray_nodes import host_and_port
from orchestrator.ray_token import use_token
from sdpo.errors import InfrastructureError
from sdpo.log_line import Event
from sdpo.show import show_error

MOST_ACTORS = 10_000
MOST_LINES = 100_000
"""Of one actor; older ones stay where they are."""
ANSWER_WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class Fetched:
    """Events by actor, and what kept other actors' lines from being read."""

    sources: list[Iterable[Event]]
    missing: list[str]


def fetch_logs(address: str, run: str, known: set[str]) -> Fetched:
    """Of the actors of `run` (a name, or a name and an incarnation) in the cluster but those in `known`, by name.

    `address`: Ray's host:port, auto, or http://… of the dashboard, which must run. Raises `ConfigError` and
    `InfrastructureError`.
    """
    from ray.util.state import list_actors
    from ray.util.state.exception import RayStateApiException

    use_token()
    where = address if address.startswith("http") else host_and_port(address)
    try:
        actors = list_actors(address=where, limit=MOST_ACTORS, detail=True, timeout=ANSWER_WITHIN_S)
    except (RayStateApiException, OSError, ConnectionError) as error:
        raise InfrastructureError(f"Ray at {address} does not list its actors: {show_error(error)}") from error
    found = Fetched([], [])
    for actor in actors:
        if actor.name and actor.name not in known and belongs(actor.ray_namespace, run):
            lines = _lines(where, actor.actor_id)
            if isinstance(lines, str):
                found.missing.append(f"{actor.name}: {lines}")
            else:
                found.sources.append(list(events_of(lines)))
    return found


def belongs(namespace: str, run: str) -> bool:
    """Whether the namespace (name and incarnation) is one of this run's."""
    name, _, incarnation = namespace.rpartition("-")
    return namespace == run or (name == run and incarnation.isdecimal())


def _lines(address: str, actor_id: str) -> list[str] | str:
    """The lines, or why there are none."""
    from ray.util.state import get_log
    from ray.util.state.exception import RayStateApiException

    try:
        pieces = get_log(
            address=address, actor_id=actor_id, suffix="err", tail=MOST_LINES, timeout=ANSWER_WITHIN_S, errors="replace"
        )
        return "".join(pieces).splitlines()
    except (RayStateApiException, OSError) as error:
        return show_error(error)
