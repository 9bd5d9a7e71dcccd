"""Joining a cluster to ask something of what runs there."""

from collections.abc import Iterator
from contextlib import contextmanager

from sdpo.errors import ConfigError, InfrastructureError
from sdpo.show import show_error


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Inside, this process is a driver of the cluster at `address`, as Ray takes it (host:port, auto).

    Raises `ConfigError` for the dashboard's address, `InfrastructureError` if the cluster does not answer.
    """
    import ray

    from orchestrator.reach import require_answer

    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"--address={address}: the dashboard's address; allowed: host:port of the head, auto on a node of the "
            "cluster (with the dashboard's address: ray job submit -- sdpo …, ray job stop)"
        )
    require_answer(address)
    try:
        ray.init(address=address, configure_logging=False, log_to_driver=False)
    except Exception as error:  # Ray raises errors of many kinds here, some of them bare
        raise InfrastructureError(f"Ray at {address} does not answer: {show_error(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()
