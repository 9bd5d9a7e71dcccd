"""The pure tier starts no process, joins no process group and connects to nothing: a test that does so fails."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3.util.connection  # noqa: F401, binds a socket when it is first imported, which is no test's doing

FORBIDDEN = (
    "subprocess.Popen",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.exec",
    "os.system",
    "socket.connect",
    "socket.bind",
)
_events: list[str] | None = None


def _audit(event: str, _: tuple[Any, ...]) -> None:
    if _events is not None and event in FORBIDDEN:
        _events.append(event)


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _starts_nothing() -> Iterator[None]:
    global _events
    _events = []
    yield
    found, _events = _events, None
    assert not found, f"a pure test may not do this: {', '.join(found)}; move it to tests/process"
