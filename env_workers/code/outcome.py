"""What one test of a program did: the runner's records, checked and typed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from env_workers.runner.codec import decode, encode
from sdpo.errors import InfrastructureError


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of one of the program's functions; kwargs are (name, value)."""

    function: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def record(self, max_bytes: int) -> dict[str, Any]:
        """Return the call for `Executor.execute`; `max_bytes` bounds each argument.

        Raises UnsupportedError or TooLargeError for arguments that cannot travel.
        """
        inputs = [encode(value, max_bytes) for value in self.args]
        kwargs = {name: encode(value, max_bytes) for name, value in self.kwargs}
        return {"kind": "functional", "function": self.function, "inputs": inputs, "kwargs": kwargs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One test's outcome; which fields are set depends on `status` (see `env_workers.runner.program`).

    frames are (line, function) from the outermost to the innermost, at most three. Of an assert: `text` its source,
    `call` its last call, and, where they are known, one value each in `output` and `expected`.
    """

    status: str
    value: Any = None
    text: str = ""
    type_name: str = ""
    message: str = ""
    frames: tuple[tuple[int, str], ...] = ()
    line: int = 0
    code: int = 0
    call: Call | None = None
    output: tuple[Any, ...] = ()
    expected: tuple[Any, ...] = ()


LIMIT_TITLES = {
    "timeout": "Time Limit Exceeded",
    "cpu_limit": "Processor Time Limit Exceeded",
    "memory_limit": "Memory Limit Exceeded",
    "output_limit": "Output Limit Exceeded",
    "process_limit": "Process Limit Exceeded",
    "file_limit": "File Limit Exceeded",
    "disk_limit": "Disk Limit Exceeded",
    "file_size_limit": "File Size Limit Exceeded",
}
"""Statuses of outcomes that a limit ended, and what feedback calls them."""
_FIELDS: dict[str, tuple[str, ...]] = {
    "returned": ("value",),
    "printed": ("text",),
    "returned_other": ("type",),
    "raised": ("type", "message", "frames"),
    "syntax_error": ("type", "message", "line", "source"),
    "exited": ("code",),
    "killed": ("code",),
    **dict.fromkeys((*LIMIT_TITLES, "garbled", "not_run"), ()),
}
_NO_FAILURE = ("returned", "printed", "returned_other", "not_run")
_OF_ASSERTS = ("timeout", "cpu_limit", "memory_limit", "output_limit", "process_limit", "not_run")
"""Statuses that the program's values can bring the asserts themselves to."""


def parse_outcomes(records: Any, num_tests: int) -> list[Outcome]:
    """Read the runner's records, one a test; one that the program forged or broke becomes `garbled`.

    Raises InfrastructureError when there are more or fewer than `num_tests`.
    """
    return [_parse(record) for record in _list_of(records, num_tests)]


def parse_assert_outcomes(records: Any, num_groups: int) -> list[Outcome]:
    """Read the records of `env_workers.runner.asserts`, one a group. Only what the judge itself said can be a pass.

    Raises InfrastructureError as `parse_outcomes`, and for asserts that need what a proxy cannot carry.
    """
    return [_parse_group(record) for record in _list_of(records, num_groups)]


def _list_of(records: Any, count: int) -> list[Any]:
    if not isinstance(records, list) or len(records) != count:
        raise InfrastructureError(f"the runner answered {records!r:.80} instead of {count} outcomes")
    return records


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
            frames=tuple((int(line), _string(function)) for line, function in fields.get("frames", ())),
            line=int(fields.get("line", 0)),
            code=int(fields.get("code", 0)),
        )
    except (KeyError, TypeError, ValueError, OverflowError):  # OverflowError: the int of an infinite float
        return Outcome(status="garbled")


def _parse_group(record: Any) -> Outcome:
    try:
        status = record["status"]
        if status == "passed":
            return Outcome(status=status)
        if status == "failed":
            return _failed(record)
        if status == "program":
            outcome = _parse(record["outcome"])
            if outcome.status in _NO_FAILURE:
                outcome = Outcome(status="garbled")
            return replace(outcome, call=_call(record["call"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InfrastructureError(f"the judge of asserts answered {record!r:.80}: {error!r:.80}") from None
    if status == "unsupported":
        raise InfrastructureError(f"the asserts need {record.get('type')}, which a proxy cannot carry")
    if status not in _OF_ASSERTS:
        raise InfrastructureError(f"the asserts themselves failed: {record!r:.300}")
    return Outcome(status=status)


def _failed(record: Mapping[str, Any]) -> Outcome:
    return Outcome(
        status="failed",
        text=_string(record["text"]),
        message=_string(record["message"]),
        type_name=_string(record.get("other", "")),
        call=_call(record["call"]) if "call" in record else None,
        output=(decode(record["value"]),) if "value" in record else (),
        expected=(decode(record["expected"]),) if "expected" in record else (),
    )


def _call(record: Mapping[str, Any]) -> Call:
    return Call(
        function=_string(record["function"]),
        args=tuple(decode(value) for value in record["args"]),
        kwargs=tuple((_string(name), decode(value)) for name, value in record["kwargs"].items()),
    )


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value
