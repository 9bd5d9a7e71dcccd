"""Lines of actors that did not see the run directory: Ray keeps their stderr on their nodes and hands it out."""

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.log_view import events_of
from orchestrator.ray_nodes import host_and_port
from orchestrator.ray_token import auth_headers, use_token
from orchestrator.reach import require_answer
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

    url = _dashboard(address)
    try:
        actors = list_actors(address=url, limit=MOST_ACTORS, detail=True, timeout=ANSWER_WITHIN_S)
    except (RayStateApiException, OSError) as error:
        raise InfrastructureError(f"Ray's dashboard at {url} does not list actors: {show_error(error)}") from error
    found = Fetched([], [])
    for actor in actors:
        if actor.name and actor.name not in known and belongs(actor.ray_namespace, run):
            try:
                found.sources.append(list(events_of(_lines(url, actor.actor_id))))
            except urllib.error.HTTPError as error:
                found.missing.append(f"{actor.name}: {error.read().decode(errors='replace').strip() or error}")
            except OSError as error:
                found.missing.append(f"{actor.name}: {show_error(error)}")
    return found


def belongs(namespace: str, run: str) -> bool:
    """Whether the namespace (name and incarnation) is one of this run's."""
    name, _, incarnation = namespace.rpartition("-")
    return namespace == run or (name == run and incarnation.isdecimal())


def _dashboard(address: str) -> str:
    """The dashboard's URL."""
    use_token()
    if address.startswith(("http://", "https://")):
        return address.rstrip("/")
    from ray.dashboard.utils import ray_address_to_api_server_url

    gcs = host_and_port(address)
    require_answer(gcs)
    try:
        url: str = ray_address_to_api_server_url(gcs)
    except ValueError as error:
        raise InfrastructureError(f"Ray at {address} has no dashboard, which would hand out the lines") from error
    return url


def _lines(url: str, actor_id: str) -> list[str]:
    """What an actor wrote to stderr. Raises `OSError` where its node is gone or does not answer."""
    query = urllib.parse.urlencode({"actor_id": actor_id, "suffix": "err", "lines": MOST_LINES})
    request = urllib.request.Request(f"{url}/api/v0/logs/file?{query}", headers=auth_headers())
    with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
        text: str = answer.read().decode("utf-8", errors="replace")
    return text.splitlines()
