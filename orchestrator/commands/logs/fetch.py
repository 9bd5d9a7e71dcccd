"""Fetches the lines of actors that did not see the run directory from Ray, which keeps their stderr on their nodes."""

import json
import urllib.error
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.cluster.connect import auth_headers, host_and_port, read_in_cluster, require_answer, use_token
from orchestrator.cluster.namespace import parse_namespace
from orchestrator.commands.logs.view import events_of
from sdpo.errors import InfrastructureError
from sdpo.log_line import Event
from sdpo.show import show_error

MOST_ACTORS = 10_000
MOST_LINES = 100_000
"""The number of lines that are fetched of one actor; older ones are left out."""
ANSWER_WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class Fetched:
    """Events, one source per actor, and the reasons why other actors' lines could not be read."""

    sources: list[Iterable[Event]]
    missing: list[str]


def fetch_logs(address: str, run: str, known: set[str]) -> Fetched:
    """Fetch the lines of the actors of `run` (a name, or a name and an incarnation) whose names are not in `known`.

    `address` is Ray's host:port, auto, or http://… of the dashboard, which must run. Raises `ConfigError` for an
    address that cannot be used, `InfrastructureError` if the dashboard does not answer.
    """
    url = _dashboard(address)
    found = Fetched([], [])
    for actor in _actors(url):
        name = actor["name"]
        if name and name not in known and belongs(actor["ray_namespace"], run):
            try:
                found.sources.append(list(events_of(_lines(url, actor["actor_id"]))))
            except urllib.error.HTTPError as error:
                found.missing.append(f"{name}: {error.read().decode(errors='replace').strip() or error}")
            except OSError as error:
                found.missing.append(f"{name}: {show_error(error)}")
    return found


def belongs(namespace: str, run: str) -> bool:
    """Return whether a namespace belongs to the run, given by its name or by name and incarnation."""
    of_run = parse_namespace(namespace)
    return namespace == run or (of_run is not None and of_run[0] == run)


def _dashboard(address: str) -> str:
    """Return the dashboard's URL."""
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


def _actors(url: str) -> list[dict[str, Any]]:
    """Return the actors that the dashboard knows, as its state API describes them: name, ray_namespace, actor_id, …

    Ray's own client for this API would ask through a proxy. Raises `InfrastructureError`.
    """
    query = urllib.parse.urlencode({"limit": MOST_ACTORS, "detail": "true", "timeout": ANSWER_WITHIN_S})
    try:
        answer = json.loads(read_in_cluster(f"{url}/api/v0/actors?{query}", ANSWER_WITHIN_S, auth_headers()))
        if not answer["result"]:
            raise ValueError(answer["msg"])
        actors: list[dict[str, Any]] = answer["data"]["result"]["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InfrastructureError(f"Ray's dashboard at {url} does not list actors: {show_error(error)}") from error
    return actors


def _lines(url: str, actor_id: str) -> list[str]:
    """Return the lines that an actor wrote to stderr. Raises `OSError` if its node is gone or does not answer."""
    query = urllib.parse.urlencode({"actor_id": actor_id, "suffix": "err", "lines": MOST_LINES})
    page = read_in_cluster(f"{url}/api/v0/logs/file?{query}", ANSWER_WITHIN_S, auth_headers())
    return page.decode("utf-8", errors="replace").splitlines()
