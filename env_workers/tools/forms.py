"""The accepted forms of an expected argument: what a value may be, at every depth. Pure.

A form is a JSON value, which is accepted as it stands, or a mapping with one of the keys FORM_KEYS:

    {"any_of": [forms]}                       what one of the forms accepts
    {"object_of": {key: form}, "optional": [keys]}   an object of these keys; the optional ones may be left out
    {"list_of": [forms]}                      a list of as many items, each accepted by the form at its place
    {"exactly": value}                        the value, even where it looks like a form
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

FORM_KEYS = ("any_of", "object_of", "list_of", "exactly")
RELATIVE_TOLERANCE = 1e-9
_LOOSE = re.compile(r"[ ,./\-_*^]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text, a number, true, false or null."""

    value: Any


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """An object. Its keys are those of `forms`; those in `optional` may be missing."""

    forms: Mapping[str, "Form"]
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of as many items as there are forms."""

    forms: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of at least two forms, none of which is an `AnyOf`."""

    forms: tuple["Form", ...]


Form = Scalar | ObjectOf | ListOf | AnyOf


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How scalars are compared.

    `strings`: loose ones are compared in lower case, without blanks and the marks , . / - _ * ^, and with " for '.
    `numbers`: equal ones are compared by value, 2 with 2.0; of typed ones 2 is accepted for 2.0, but not 2.0 for 2.
    Booleans are never numbers, and numbers are never texts.
    """

    strings: Literal["exact", "loose"] = "exact"
    numbers: Literal["equal", "typed"] = "equal"


class BadForm(Exception):
    """What cannot be read as a form: the path to it, the value there, and what is allowed."""

    def __init__(self, path: str, value: Any, allowed: str) -> None:
        super().__init__(path, value, allowed)
        self.path, self.value, self.allowed = path, value, allowed


def read_form(given: Any, path: str) -> Form:
    """Read a form; `path` names it in errors. Raises `BadForm`."""
    if not isinstance(given, Mapping) or not any(key in given for key in FORM_KEYS):
        return _plain(given, path)
    key = next(key for key in FORM_KEYS if key in given)
    allowed = {key, "optional"} if key == "object_of" else {key}
    if set(given) - allowed:
        raise BadForm(path, given, f"{key} alone, or {{exactly: ...}} around an object with that key")
    return _READERS[key](given, path)


def literal(value: Any) -> Form:
    """Return the form that accepts `value` alone, whatever keys it has."""
    if isinstance(value, Mapping):
        return ObjectOf({key: literal(inner) for key, inner in value.items()})
    return ListOf(tuple(map(literal, value))) if isinstance(value, list | tuple) else Scalar(value)


def accepts(form: Form, given: Any, comparison: Comparison) -> bool:
    """Whether `form` accepts the JSON value `given`. The order of keys does not count, that of items does."""
    if isinstance(form, AnyOf):
        return any(accepts(inner, given, comparison) for inner in form.forms)
    if isinstance(form, ListOf):
        return (
            isinstance(given, list)
            and len(given) == len(form.forms)
            and all(accepts(inner, item, comparison) for inner, item in zip(form.forms, given, strict=True))
        )
    if isinstance(form, ObjectOf):
        return (
            isinstance(given, dict)
            and given.keys() <= form.forms.keys()
            and form.forms.keys() - given.keys() <= form.optional
            and all(accepts(form.forms[key], value, comparison) for key, value in given.items())
        )
    return _same_scalar(given, form.value, comparison)


def kinds_of(form: Form, comparison: Comparison) -> set[type]:
    """Return the kinds, as `kind_of` gives them, of the values that `form` accepts."""
    if isinstance(form, AnyOf):
        return set().union(*(kinds_of(inner, comparison) for inner in form.forms))
    if isinstance(form, Scalar):
        one = kind_of(form.value, comparison)
        return {one, int} if one is float else {one}
    return {dict if isinstance(form, ObjectOf) else list}


def kind_of(value: Any, comparison: Comparison) -> type:
    """Return the type of a JSON value; integers are floats unless numbers are typed."""
    return float if type(value) is int and comparison.numbers == "equal" else type(value)


def example(form: Form) -> Any:
    """Return one of the values that `form` accepts, with all optional keys."""
    if isinstance(form, AnyOf):
        return example(form.forms[0])
    if isinstance(form, ListOf):
        return [example(inner) for inner in form.forms]
    return {key: example(inner) for key, inner in form.forms.items()} if isinstance(form, ObjectOf) else form.value


def loose_text(text: str) -> str:
    """Return what two loosely equal texts have in common."""
    return _LOOSE.sub("", text).lower().replace("'", '"')


def _plain(given: Any, path: str) -> Form:
    """Read a value that is accepted as it stands. Raises `BadForm` where it holds what looks like a form."""
    _refuse_hidden(given, path)
    return literal(given)


def _refuse_hidden(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        if any(key in value for key in FORM_KEYS):
            raise BadForm(path, value, "object_of or list_of around a form, or exactly around a value")
        value = list(value.values())
    for inner in value if isinstance(value, list | tuple) else ():
        _refuse_hidden(inner, path)


def _read_any(given: Mapping[str, Any], path: str) -> Form:
    items = _items(given["any_of"], f"{path}.any_of", "at least one accepted form", at_least=1)
    forms = [read_form(item, f"{path}.any_of[{index}]") for index, item in enumerate(items)]
    flat = [inner for form in forms for inner in (form.forms if isinstance(form, AnyOf) else (form,))]
    return AnyOf(tuple(flat)) if len(flat) > 1 else flat[0]


def _read_object(given: Mapping[str, Any], path: str) -> Form:
    forms, optional = given["object_of"], given.get("optional", ())
    if not isinstance(forms, Mapping):
        raise BadForm(f"{path}.object_of", forms, "a mapping of keys to accepted forms")
    if not isinstance(optional, list | tuple) or not all(isinstance(key, str) and key in forms for key in optional):
        raise BadForm(f"{path}.optional", optional, f"a list of keys of {path}.object_of")
    read = {key: read_form(form, f"{path}.object_of.{key}") for key, form in forms.items()}
    return ObjectOf(read, frozenset(optional))


def _read_list(given: Mapping[str, Any], path: str) -> Form:
    items = _items(given["list_of"], f"{path}.list_of", "accepted forms")
    return ListOf(tuple(read_form(item, f"{path}.list_of[{index}]") for index, item in enumerate(items)))


_READERS: Mapping[str, Callable[[Mapping[str, Any], str], Form]] = {
    "any_of": _read_any,
    "object_of": _read_object,
    "list_of": _read_list,
    "exactly": lambda given, _: literal(given["exactly"]),
}


def _items(value: Any, path: str, of: str, at_least: int = 0) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or len(value) < at_least:
        raise BadForm(path, value, f"a list of {of}")
    return value


def _same_scalar(given: Any, wanted: Any, comparison: Comparison) -> bool:
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    if isinstance(given, int) and isinstance(wanted, int):
        return given == wanted
    if isinstance(given, int | float) and isinstance(wanted, int | float):
        one_way = comparison.numbers == "typed" and isinstance(given, float) and isinstance(wanted, int)
        return not one_way and _close(given, wanted)
    if comparison.strings == "loose" and isinstance(given, str) and isinstance(wanted, str):
        return loose_text(given) == loose_text(wanted)
    return type(given) is type(wanted) and bool(given == wanted)


def _close(given: float, wanted: float) -> bool:
    try:
        return math.isclose(given, wanted, rel_tol=RELATIVE_TOLERANCE)
    except OverflowError:  # an integer beyond the floats
        return False
