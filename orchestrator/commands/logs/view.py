"""Reads the logs of a run: merges all actors' lines by time, filters, follows and renders them."""

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.text import Text

from sdpo.log_line import Event, parse

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}
ACTOR_STYLES = {"rollout": "cyan", "env": "green", "teacher": "magenta", "learner": "blue", "orchestrator": "bold"}
TAIL_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Chooses events; None and the lowest level match everything. `actor` also matches its replacements."""

    actor: str | None = None
    level: str = "DEBUG"
    step: int | None = None
    task: str | None = None

    def fits(self, event: Event) -> bool:
        """Return whether the event matches."""
        number = LEVELS.index(event.level) if event.level in LEVELS else len(LEVELS)
        return (
            (self.actor is None or event.actor == self.actor or event.actor.startswith(f"{self.actor}-"))
            and number >= LEVELS.index(self.level)
            and self.step in (None, event.step)
            and self.task in (None, event.task)
        )


def events_of(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of one file. Lines of another form (a library's, a torn end) belong to the event before."""
    held: Event | None = None
    for line in lines:
        event = parse(line)
        if event is not None:
            if held is not None:
                yield held
            held = event
        elif held is not None and line.strip():
            held = replace(held, message=f"{held.message}\n{line.rstrip()}")
    if held is not None:
        yield held


def merged(sources: Sequence[Iterable[Event]]) -> Iterator[Event]:
    """Merge several sources, each of them in order, by time."""
    return heapq.merge(*sources, key=lambda event: event.time)


def actors_of(folder: Path) -> set[str]:
    """Return the names of the actors that have a file in RUN_DIR/logs."""
    return {file.name.partition(".log")[0] for file in folder.glob("*.log*")}


class Follower:
    """Reads the events of a folder: at first all, then those since the last look, also after a file was rotated."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = dict[tuple[int, bytes], int]()
        """Bytes of whole lines read so far. The key of a file is its inode, which it keeps when it is rotated, and its
        first line, because the inode of a removed file is used again."""

    def look(self) -> Iterator[Event]:
        """Yield the events since the last look, by time; read all of them before the next look."""
        return merged([events_of(self._new(file)) for file in sorted(self._folder.glob("*.log*"))])

    def _new(self, file: Path) -> Iterator[str]:
        with file.open("rb") as stream:
            identity = os.fstat(stream.fileno()).st_ino, stream.readline()
            offset = stream.seek(self._read.get(identity, 0))
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                self._read[identity] = offset
                yield line.decode("utf-8", errors="replace")


def last_error(folder: Path, since: str = "") -> str | None:
    """Return the newest warning or error of any actor after `since`, if it is in the last `TAIL_BYTES` of its file."""
    newest: Event | None = None
    for file in folder.glob("*.log"):
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
        for event in filter(LogFilter(level="WARNING").fits, events_of(lines)):
            newest = event if event.time > (since if newest is None else newest.time) else newest
    return None if newest is None else f"{newest.time[:19]}Z {newest.actor}: {newest.message.splitlines()[0]}"


def shown(event: Event) -> Text:
    """Return an event for a terminal: time of day, level, actor, step and task, message."""
    role = event.actor.partition("-")[0]
    about = [] if event.step is None else [f"step {event.step}"]
    about += [] if event.task is None else [event.task]
    text = Text(f"{event.time[11:23]} ", style="dim")
    text.append(f"{event.level:<7} ", style=STYLES.get(event.level, ""))
    text.append(f"{event.actor:<14} ", style=ACTOR_STYLES.get(role, ""))
    text.append(f"[{', '.join(about)}] " if about else "", style="dim")
    text.append(event.message, style=STYLES.get(event.level, ""))
    return text
