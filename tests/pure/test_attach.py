"""The byte stream of an attached container, over a socket pair: chunks cut anywhere, two origins, deadlines."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from env_workers.sandbox.attach import AttachStream
from sdpo.errors import InfrastructureError


@pytest.fixture
def ends() -> Iterator[tuple[AttachStream, socket.socket]]:
    ours, engine = socket.socketpair()
    stream = AttachStream(socket.SocketIO(ours, "rwb"))
    yield stream, engine
    stream.close()
    engine.close()


def chunk(origin: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", origin, len(data)) + data


def soon() -> float:
    return time.monotonic() + 5


def test_chunks_are_joined_and_sorted_wherever_they_are_cut(ends: tuple[AttachStream, socket.socket]) -> None:
    stream, engine = ends
    sent = chunk(1, b"abc") + chunk(2, b"Traceback") + chunk(1, b"") + chunk(1, b"defg") + chunk(2, b" end")
    for cut in (3, 7, 5):
        with pytest.raises(InfrastructureError, match="did not answer in time"):
            stream.read_exactly(1, time.monotonic() + 0.02)
        engine.sendall(sent[:cut])
        sent = sent[cut:]
    assert stream.read_exactly(3, soon()) == b"abc"
    engine.sendall(sent[:-1])
    assert stream.read_exactly(4, soon()) == b"defg"
    engine.sendall(sent[-1:])
    engine.close()
    stream.read_rest(5)
    assert stream.complaint == "Traceback end"
    with pytest.raises(InfrastructureError, match="ended"):
        stream.read_exactly(1, soon())


def test_a_stream_that_only_ever_complains_meets_the_deadline(ends: tuple[AttachStream, socket.socket]) -> None:
    stream, engine = ends
    begin = time.monotonic()

    def complain() -> None:
        with contextlib.suppress(OSError):
            while time.monotonic() < begin + 5:
                engine.sendall(chunk(2, b"x" * 100) * 100)

    thread = threading.Thread(target=complain)
    thread.start()
    with pytest.raises(InfrastructureError, match="did not answer in time"):
        stream.read_exactly(1, begin + 0.2)
    assert time.monotonic() - begin < 2
    stream.close()
    thread.join(5)
    assert len(stream.complaint) < 5000


def test_writing_waits_for_room_until_its_deadline(ends: tuple[AttachStream, socket.socket]) -> None:
    stream, engine = ends
    with pytest.raises(InfrastructureError, match="did not answer in time"):
        stream.write_all(bytes(10**8), time.monotonic() + 0.1)
    engine.close()
    with pytest.raises(InfrastructureError, match="broke"):
        stream.write_all(bytes(10**8), soon())


def test_an_unknown_origin_is_a_fault_of_the_protocol(ends: tuple[AttachStream, socket.socket]) -> None:
    stream, engine = ends
    engine.sendall(b"HTTP/1.1 500 Internal Server Error\r\n")
    with pytest.raises(InfrastructureError, match="unknown origin 72"):
        stream.read_exactly(1, soon())
