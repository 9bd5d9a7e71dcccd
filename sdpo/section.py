"""The strict base of every section of a run file, and the types of keys that name an entry of a registry or a path."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sdpo.bounds import LARGEST_FREE_NUMBER
from sdpo.paths import expanded


class Section(BaseModel):
    """Base of a config section: unknown keys are errors, values are frozen, every field is described."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class OneOf:
    """Restricts a string key to the names of a registry: `divergence: Annotated[str, OneOf(DIVERGENCES)]`."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


NUMBER_ERROR = "number"
"""Type of pydantic's error for a number in a mapping of unknown keys; its context has its `key` and its `value`."""


class FreeNumbers:
    """Marks a mapping whose keys this project does not know: its numbers are finite and of a size that can be meant."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_without_huge_numbers, handler(source))


def _without_huge_numbers(value: Any) -> Any:
    for key, number in _numbers(value):
        if not abs(number) <= LARGEST_FREE_NUMBER:
            raise PydanticCustomError(NUMBER_ERROR, "{key}", {"key": key, "value": number})
    return value


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number below `value` with the keys and indices that lead to it, each after a dot."""
    if isinstance(value, int | float):
        yield key, value
    elif isinstance(value, Mapping | list | tuple):
        for name, below in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _numbers(below, f"{key}.{name}")


PATH_ERROR = "path"
"""Type of pydantic's error for a path that cannot be used; its context has the `reason`."""


class IsPath:
    """Marks a key that holds a path or a URI, several of them, or none: `dir: Annotated[str, IsPath()]`.

    Every key of a path is one, so that all of them follow the rule of `sdpo.paths.expanded`.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_expanded, handler(source))


def _expanded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_expanded(part) for part in value)
    try:
        return None if value is None else expanded(value)
    except ValueError as error:
        raise PydanticCustomError(PATH_ERROR, "{reason}", {"reason": str(error)}) from None
