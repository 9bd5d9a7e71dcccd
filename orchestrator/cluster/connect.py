"""Connecting to a Ray cluster: a probe in bounded time, a connection, the token, and the nodes' metrics addresses.

ray is imported inside functions, so that a command which asks no cluster starts fast.
"""

import json
import logging
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sdpo.errors import ConfigError, InfrastructureError
from sdpo.show import show_error

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
METRICS_TIMEOUT_S = 5.0


@contextmanager
def ray_errors(message: str) -> Iterator[None]:
    """Raise `InfrastructureError`, one line that begins with `message`, for any error of Ray inside the block."""
    try:
        yield
    except Exception as error:  # Ray raises errors of many kinds where a cluster does not answer, some of them bare
        raise InfrastructureError(f"{message}: {show_error(error)}") from error


def init_ray(cluster: str, **options: Any) -> None:
    """Call `ray.init` without its own log lines. Raises `InfrastructureError` that names `cluster`."""
    import ray

    _silence_token_notice()
    with ray_errors(f"{cluster} did not start or answer"):
        ray.init(**options, configure_logging=False, log_to_driver=False)


@contextmanager
def ray_connection(address: str) -> Iterator[None]:
    """Make this process a driver of the cluster at `address` (host:port or auto) for the block.

    Raises `ConfigError` for the dashboard's address, `InfrastructureError` if the cluster does not answer.
    """
    import ray

    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"--address={address}: the dashboard's address; allowed: host:port of the head, auto on a node of the "
            "cluster (with the dashboard's address: ray job submit -- sdpo …, ray job stop)"
        )
    require_answer(address)
    init_ray(f"Ray at {address}", address=address)
    try:
        yield
    finally:
        ray.shutdown()


def require_answer(address: str, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Return if a Ray head answers at `address` (host:port, ray://host:port or auto).

    `ray.init` waits for minutes where nothing answers. Raises `InfrastructureError`, one line, if the connection is not
    accepted within `CONNECT_TIMEOUT_S`, or if what accepts it is not a Ray head that answers this process within
    `answer_timeout_s`.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    cluster = f"Ray at {address}"
    head = _head_of(address)
    if head is None:
        raise InfrastructureError(f"{cluster}: no running Ray is known here; start one, or give RAY_ADDRESS=host:port")
    try:
        socket.create_connection(head, timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        raise InfrastructureError(
            f"{cluster} cannot be reached: {reason}; start it, correct the address, or unset RAY_ADDRESS for a Ray of "
            "the run's own"
        ) from None
    if address.startswith("ray://"):
        return
    use_token()
    failures = list[InfrastructureError]()

    def ask() -> None:
        try:
            with ray_errors(f"{cluster} did not answer"):
                GcsClient(f"{head[0]}:{head[1]}")
        except InfrastructureError as error:
            failures.append(error)

    # Ray's client cannot be interrupted: a daemon thread does not keep this process alive
    thread = threading.Thread(target=ask, name="sdpo-ray-address", daemon=True)
    thread.start()
    thread.join(answer_timeout_s)
    if thread.is_alive():
        raise InfrastructureError(f"{cluster} takes connections and does not answer within {answer_timeout_s:g} s")
    if failures:
        raise failures[0]


def use_token() -> None:
    """Make Ray's clients in this process send the token (RAY_AUTH_TOKEN, or ~/.ray/auth_token), if there is one.

    `ray.init` does so by itself, Ray's other clients do not. Where RAY_AUTH_MODE is set, it decides.
    """
    from ray._private.authentication import authentication_token_setup as setup

    _silence_token_notice()
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def auth_headers() -> dict[str, str]:
    """Return the HTTP headers for requests to Ray's dashboard; {} without a token."""
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled

    use_token()
    headers: dict[str, str] = get_auth_headers_if_auth_enabled({})
    return headers


def read_in_cluster(url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> bytes:
    """Return what an address of the cluster answers to a GET request, which never goes through a proxy.

    http_proxy and its kin are for addresses of the internet; a proxy does not reach the nodes of a cluster, and would
    see the token. Raises `OSError`, where the status is an error `urllib.error.HTTPError`.
    """
    request = urllib.request.Request(url, headers=dict(headers or {}))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=timeout_s) as answer:
        content: bytes = answer.read()
    return content


def metrics_targets(address: str) -> list[str]:
    """Return host:port of the metrics of every live node; this process starts nothing and joins no cluster.

    `address`: Ray's host:port, `auto`, or http(s)://… of the dashboard. Raises `ConfigError` for an address of another
    form, `InfrastructureError` where no Ray answers.
    """
    if address.startswith(("http://", "https://")):
        return _targets_by_dashboard(address.rstrip("/"))
    return _targets_by_head(host_and_port(address))


def host_and_port(address: str) -> str:
    """Return host:port of the head that `address` names; `auto` is the cluster on this node.

    Raises as `metrics_targets`.
    """
    from ray._private.services import canonicalize_bootstrap_address

    allowed = "allowed: HOST:PORT, auto, or http://HOST:PORT of the dashboard"
    try:
        head: str | None = None if "://" in address else canonicalize_bootstrap_address(address)
    except (ValueError, OSError) as error:
        raise ConfigError(f"address={address}: {show_error(error)}; {allowed}") from error
    if head is None and address == "auto":
        raise InfrastructureError("address=auto: no Ray runs on this node")
    if head is None:
        raise ConfigError(f"address={address}: {allowed}")
    return head


def _silence_token_notice() -> None:
    """Ray logs at each start that a token is used."""
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)


def _head_of(address: str) -> tuple[str, int] | None:
    """Return the head's host and port; None if `address` is `auto` and no Ray runs on this node."""
    from ray._private.services import canonicalize_bootstrap_address

    match = re.fullmatch(r"(?:ray://)?\[?([\w.:-]+?)\]?:(\d+)(?:/.*)?", address)
    if match is None and (known := canonicalize_bootstrap_address(address)) is not None:
        match = re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d+)", known)
    return None if match is None else (match[1], int(match[2]))


def _targets_by_dashboard(url: str) -> list[str]:
    try:
        groups: list[dict[str, Any]] = json.loads(
            read_in_cluster(f"{url}/api/prometheus/sd", METRICS_TIMEOUT_S, auth_headers())
        )
    except (OSError, ValueError) as error:
        raise InfrastructureError(f"no Ray dashboard answers at {url}: {show_error(error)}") from error
    return [target for group in groups for target in group["targets"]]


def _targets_by_head(address: str) -> list[str]:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub lacks it

    require_answer(address)
    with ray_errors(f"Ray at {address} does not name its nodes"):
        nodes = GcsClient(address=address).get_all_node_info(timeout=METRICS_TIMEOUT_S).values()
    alive = [node for node in nodes if node.state == 0]
    return [f"{node.node_manager_address}:{node.metrics_export_port}" for node in alive]
