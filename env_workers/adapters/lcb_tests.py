"""The tests of a LiveCodeBench record, decoded: nothing in a record is ever executed."""

import base64
import io
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from env_workers.adapters.fields import bad_field, field, text_field
from env_workers.code.capacity import too_large
from env_workers.code.tests import MAX_TEST_BYTES
from env_workers.runner.codec import size_of
from sdpo.errors import TaskFileError
from sdpo.records import NotJsonError, read_json

MAX_DECODED_BYTES = 2**30


def read_tests(where: str, record: Mapping[str, Any], which: str) -> list[dict[str, Any]]:
    """Return tests as the code environment takes them; `which` is private, public or both (public ones first)."""
    keys = ("public_test_cases", "private_test_cases") if which == "both" else (f"{which}_test_cases",)
    tests = []
    for key in keys:
        for index, case in enumerate(_cases(where, record, key)):
            tests.append(_test(f"{where}: {key}[{index}]", case, where, record))
    return tests


def fits(test: Mapping[str, Any]) -> bool:
    """Whether the test is small enough for the code environment."""
    printed = test["kind"] == "stdin"
    given = len(test["input"]) if printed else size_of(test["inputs"])
    return given <= MAX_TEST_BYTES and too_large(test["expected"], printed=printed) is None


def _cases(where: str, record: Mapping[str, Any], key: str) -> list[Any]:
    value = field(where, record, key)
    cases = _decode(where, key, value) if isinstance(value, str) else value
    if not isinstance(cases, list):
        raise bad_field(where, key, cases, "a list of tests, as JSON or packed")
    return cases


def _decode(where: str, key: str, text: str) -> Any:
    try:
        return read_json(text)
    except NotJsonError:
        pass
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), MAX_DECODED_BYTES)
        if unpacker.unconsumed_tail:
            raise TaskFileError(f"{where}: {key}: larger than {MAX_DECODED_BYTES} bytes")
        return read_json(_OnlyText(io.BytesIO(data)).load())
    except TaskFileError:
        raise
    except Exception:  # unpickling raises errors of any type
        raise bad_field(where, key, text, "JSON, or base64 of zlib of a pickled JSON string") from None


class _OnlyText(pickle.Unpickler):
    """Loads plain values; whatever names a class or a function, and so could run code, is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no text")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a persistent id is no text")


def _test(key: str, case: Any, where: str, record: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(case, dict):
        raise TaskFileError(f"{key}={case!r:.80}: allowed: an object with input, output, testtype")
    given, expected = (text_field(key, case, name, blank=True) for name in ("input", "output"))
    kind = case.get("testtype")
    if kind == "stdin":
        return {"kind": "stdin", "input": given, "expected": expected}
    if kind == "functional":
        inputs = [_json(f"{key}.input", line) for line in given.split("\n") if line.strip()]
        function = _function(where, record)
        return {
            "kind": "functional",
            "function": function,
            "inputs": inputs,
            "expected": _json(f"{key}.output", expected),
        }
    raise bad_field(key, "testtype", kind, "stdin, functional")


def _function(where: str, record: Mapping[str, Any]) -> str:
    metadata = field(where, record, "metadata")
    data = _json(f"{where}: metadata", metadata) if isinstance(metadata, str) else metadata
    if not isinstance(data, dict):
        raise bad_field(where, "metadata", metadata, "an object with func_name")
    return text_field(f"{where}: metadata", data, "func_name")


def _json(key: str, text: str) -> Any:
    try:
        return read_json(text)
    except NotJsonError:
        raise TaskFileError(f"{key}={text!r:.80}: allowed: JSON, one argument a line") from None
