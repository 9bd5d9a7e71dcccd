"""What one test of a program did: the runner's records, checked and typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from env_workers.runner import decode
from sdpo.errors import InfrastructureError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One test's outcome; which fields are set depends on `status` (see `env_workers.runner`).

    frames are (line, function) from the outermost to the innermost, at most three.
    """

    status: str
    value: Any = None
    text: str = ""
    type_name: str = ""
    message: str = ""
    frames: tuple[tuple[int, str], ...] = ()
    line: int = 0
    code: int = 0


_FIELDS: dict[str, tuple[str, ...]] = {
    "returned": ("value",),
    "printed": ("text",),
    "returned_other": ("type",),
    "raised": ("type", "message", "frames"),
    "syntax_error": ("type", "message", "line", "source"),
    "exited": ("code",),
    "killed": ("code",),
    "timeout": (),
    "memory_limit": (),
    "output_limit": (),
    "process_limit": (),
    "garbled": (),
    "not_run": (),
}


def parse_outcomes(records: Any, num_tests: int) -> list[Outcome]:
    """The runner's records, one a test; one that the program forged or broke becomes `garbled`.

    Raises InfrastructureError when there are more or fewer than `num_tests`.
    """
    if not isinstance(records, list) or len(records) != num_tests:
        raise InfrastructureError(f"the runner answered {records!r:.80} instead of {num_tests} outcomes")
    return [_parse(record) for record in records]


def _parse(record: Any) -> Outcome:
    try:
        status = record["status"]
        fields = {name: record[name] for name in _FIELDS[status]}
        return Outcome(
            status=status,
            value=decode(fields["value"]) if "value" in fields else None,
            text=_string(fields.get("text", fields.get("source", ""))),
            type_name=_string(fields.get("type", "")),
            message=_string(fields.get("message", "")),
            frames=_frames(fields),
            line=int(fields.get("line", 0)),
            code=int(fields.get("code", 0)),
        )
    except (KeyError, TypeError, ValueError):
        return Outcome(status="garbled")


def _frames(fields: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
    return tuple((int(line), _string(function)) for line, function in fields.get("frames", ()))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value
