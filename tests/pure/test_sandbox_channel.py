"""Frames over pipes, and the buffers in which the runner passes them on: bounds, deadlines, a closed other side."""

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from env_workers.runner.buffer import Buffer
from env_workers.runner.framing import MAX_FRAME_BYTES, MAX_HEAD_BYTES, SIZES, check_sizes, pack, parse_head
from env_workers.sandbox.channel import Channel, PipeStream
from sdpo.errors import InfrastructureError


@pytest.fixture
def ends() -> Iterator[tuple[Channel, int, int]]:
    """A channel, the descriptor that it reads what is written to, and the one that gives what it writes."""
    from_runner, to_channel = os.pipe()
    from_channel, to_runner = os.pipe()
    yield Channel(PipeStream(from_runner, to_runner)), to_channel, from_channel
    for fd in (from_runner, to_channel, from_channel, to_runner):
        with contextlib.suppress(OSError):  # the test closed it
            os.close(fd)


def test_a_frame_arrives_whole_wherever_it_is_cut(ends: tuple[Channel, int, int]) -> None:
    channel, write, read = ends
    channel.send({"op": "run"}, b"body", 1.0)
    assert os.read(read, 1000) == pack({"op": "run"}, b"body")
    frame = pack({"ended": None}, b"x" * 100)
    os.write(write, frame[:5])
    with pytest.raises(InfrastructureError, match="the sandbox did not answer in time"):
        channel.receive(0.05)
    os.write(write, frame[5:])
    assert channel.receive(1.0) == ({"ended": None}, b"x" * 100)


def test_a_closed_or_broken_stream_is_an_infrastructure_error(ends: tuple[Channel, int, int]) -> None:
    channel, write, read = ends
    os.write(write, SIZES.pack(MAX_HEAD_BYTES + 1, 0))
    with pytest.raises(InfrastructureError, match="the sandbox sent a frame of"):
        channel.receive(1.0)
    os.close(write)
    with pytest.raises(InfrastructureError, match="the sandbox's stream ended"):
        channel.receive(1.0)
    os.close(read)
    with pytest.raises(InfrastructureError, match="the sandbox's stream broke"):
        channel.send({}, b"", 1.0)
    with pytest.raises(InfrastructureError, match="at most"):
        channel.send({}, bytes(MAX_FRAME_BYTES + 1), 1.0)


def test_a_full_pipe_meets_the_deadline(ends: tuple[Channel, int, int]) -> None:
    begin = time.monotonic()
    with pytest.raises(InfrastructureError, match="did not answer in time"):
        ends[0].send({}, bytes(2**20), 0.1)
    assert time.monotonic() - begin < 2


def test_heads_are_json_objects_within_bounds() -> None:
    assert check_sizes(SIZES.pack(3, 4)) == (3, 4)
    for sizes in (SIZES.pack(0, MAX_FRAME_BYTES + 1), SIZES.pack(MAX_HEAD_BYTES + 1, 0)):
        with pytest.raises(ValueError, match="a frame of"):
            check_sizes(sizes)
    assert parse_head(b'{"a":1}') == {"a": 1}
    for head in (b"[1]", b"{", b"{}{}", b"\xff", b"[" * 50_000):
        with pytest.raises(ValueError, match="not a JSON object"):
            parse_head(head)


def test_a_buffer_counts_lines_and_moves_what_is_left_to_the_front() -> None:
    read, write = os.pipe()
    buffer = Buffer(8)
    os.write(write, b"ab\ncd\nefgh")
    assert buffer.fill(read) == 8
    assert (len(buffer), buffer.free_bytes, buffer.first()) == (8, 0, ord("a"))
    assert buffer.fill(read) == 0  # it is full
    assert (buffer.line_bytes(), buffer.line_bytes(), buffer.line_bytes()) == (3, 3, 0)
    buffer.skip(3)
    assert buffer.drain(write, 3) == 3
    buffer.compact()
    assert (len(buffer), buffer.free_bytes) == (2, 6)
    assert buffer.fill(read) == 5  # "gh" and the drained line
    assert buffer.line_bytes() == 7
    buffer.close()
    buffer.close()
    os.close(read)
    os.close(write)
