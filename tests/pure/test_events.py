"""The stream of run events: who hears them, in which order, and what an error of a reader does."""

import asyncio
import threading
from contextvars import copy_context

import pytest

from orchestrator.events import Event, Message, emit, listening


def text_of(event: Event) -> str:
    assert isinstance(event, Message)
    return event.text


def test_readers_hear_events_of_their_block_and_of_its_tasks_innermost_first() -> None:
    heard = list[str]()

    async def inner() -> None:
        emit(Message(text="from a task"))

    async def outer() -> None:
        with listening(lambda e: heard.append(f"inner {text_of(e)}")):
            await asyncio.create_task(inner())
            await asyncio.to_thread(emit, Message(text="from a thread"))
        emit(Message(text="after"))

    emit(Message(text="nobody reads this"))
    with listening(lambda e: heard.append(f"outer {text_of(e)}")):
        asyncio.run(outer())
    emit(Message(text="nor this"))
    assert heard == [
        "inner from a task",
        "outer from a task",
        "inner from a thread",
        "outer from a thread",
        "outer after",
    ]


def test_a_thread_of_its_own_needs_the_context_of_the_run() -> None:
    heard = list[str]()

    def run_in_thread(target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        thread.start()
        thread.join()

    with listening(lambda e: heard.append(text_of(e))):
        run_in_thread(emit, Message(text="without"))
        run_in_thread(copy_context().run, emit, Message(text="with"))
    assert heard == ["with"]


def test_an_error_of_a_reader_reaches_the_part_that_emits_and_no_later_reader() -> None:
    """A step that cannot be written into the run directory must not be shown as recorded."""
    heard = list[str]()

    def full(event: Event) -> None:
        raise OSError("no space left")

    with listening(lambda e: heard.append(text_of(e))), listening(full), pytest.raises(OSError, match="no space"):
        emit(Message(text="x"))
    assert heard == []
    emit(Message(text="the readers are gone with the block"))
