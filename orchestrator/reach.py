"""Whether somebody answers at a Ray address, in bounded time: `ray.init` waits for minutes where nobody does."""

import re
import socket
import threading

from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from orchestrator.ray_token import use_token
from sdpo.errors import InfrastructureError
from sdpo.show import show_error

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0


def require_answer(address: str, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Returns if a Ray head answers at `address` (host:port, ray://host:port or auto).

    Raises `InfrastructureError`, one line, if nobody takes the connection within `CONNECT_TIMEOUT_S` or what does is
    not a Ray head that answers this process within `answer_timeout_s`.
    """
    where = f"Ray at {address}"
    found = _host_and_port(address)
    if found is None:
        raise InfrastructureError(f"{where}: no running Ray is known here; start one, or give RAY_ADDRESS=host:port")
    try:
        socket.create_connection(found, timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        raise InfrastructureError(
            f"{where} cannot be reached: {why}; start it, mend the address, or unset RAY_ADDRESS for a Ray of the "
            "run's own"
        ) from None
    if address.startswith("ray://"):
        return
    use_token()
    asking = _Asking(f"{found[0]}:{found[1]}")
    asking.start()
    asking.join(answer_timeout_s)
    if asking.is_alive():
        raise InfrastructureError(f"{where} takes connections and does not answer within {answer_timeout_s:g} s")
    if asking.error is not None:
        raise InfrastructureError(f"{where} did not answer: {show_error(asking.error)}") from asking.error


class _Asking(threading.Thread):
    """A daemon: Ray's client cannot be interrupted."""

    def __init__(self, address: str) -> None:
        super().__init__(name="sdpo-ray-address", daemon=True)
        self._address = address
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            GcsClient(self._address)
        except Exception as error:  # Ray raises errors of many kinds here, some of them bare
            self.error = error


def _host_and_port(address: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:ray://)?\[?([\w.:-]+?)\]?:(\d+)(?:/.*)?", address)
    if found is None and (known := canonicalize_bootstrap_address(address)) is not None:
        found = re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d+)", known)
    return None if found is None else (found[1], int(found[2]))
