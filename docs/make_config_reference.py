"""Writes docs/config.md, the reference of the run file, from the descriptions in `sdpo.config`.

`python docs/make_config_reference.py` writes it; a test keeps it current.
"""

import json
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sdpo.bounds import bare, limits
from sdpo.config import RunConfig
from sdpo.section import OneOf

TARGET = Path(__file__).resolve().parent / "config.md"
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
HEAD = """# The run file

A run is one YAML file; every key has a default, and `section.key=value` on the command line overrides it.
`sdpo config RUN.yaml [key=value …]` prints the resolved one. Unknown keys are errors. Sections that are *one of*
several kinds are chosen by their key `kind`. In a path `~` and `~name` at the beginning are home folders, and relative
paths begin in the folder where the command is run. The value of an override is YAML; of a key that holds text it is the
text itself (`name=1_1`), where the file needs quotes (`name: "1_1"`). This page is made from
`sdpo/config/` by `make docs`.
"""


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The config sections that an annotation allows, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def type_text(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, rules = bare(annotation)
        return type_text(inner) + limits_text(rules)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(argument) for argument in get_args(annotation))
    if annotation is type(None):
        return "null"
    if origin is dict:
        return f"dict[{', '.join(map(type_text, get_args(annotation)))}]"
    return getattr(annotation, "__name__", str(annotation)) if origin is None else str(annotation)


def limits_text(rules: Iterable[Any]) -> str:
    found = [f"{SIGNS[name]} {limit:.15g}" for name, limit in limits(rules)]
    return f" ({', '.join(found)})" if found else ""


def one_cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    return "required" if default is PydanticUndefined else f"`{json.dumps(default)}`"


def table(model: type[BaseModel], title: str) -> list[str]:
    """One section: its own keys in a table, then a table for each section inside."""
    rows: list[str] = []
    inner: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        if models_in(field.annotation):
            inner.append((name, field))
            continue
        names = next((rule.names for rule in field.metadata if isinstance(rule, OneOf)), None)
        kind = f"{type_text(Literal[names] if names else field.annotation)}{limits_text(field.metadata)}"
        rows.append(f"| `{name}` | {kind} | {default_text(field)} | {one_cell(field.description)} |")
    lines = ["", f"## {title}", ""]
    if rows:
        lines += ["| key | allowed | default | what |", "|---|---|---|---|", *rows]
    prefix = "" if model is RunConfig else f"{title.split(' ')[0].strip('`,')}."
    for name, field in inner:
        choices = models_in(field.annotation)
        default = field.get_default(call_default_factory=True, validated_data={})
        for choice in choices:
            note = ""
            if len(choices) > 1:
                note = f", kind `{get_args(choice.model_fields['kind'].annotation)[0]}`"
                note += " (default)" if isinstance(default, choice) else ""
            section = table(choice, f"`{prefix}{name}`{note}")
            lines += [*section[:2], "", str(field.description), *section[2:]]
    return lines


def render() -> str:
    return HEAD + "\n".join(table(RunConfig, "Top level")) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render())
