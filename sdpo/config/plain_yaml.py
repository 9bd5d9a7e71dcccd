"""YAML as a run file means it: no surprises of YAML 1.1, no key given twice, no tags.

`1e-3` is a number, `none` is null like `null` and `~`, `yes`, `on`, `010`, `1:30` and `2026-01-01` are what they look
like: text or decimal integers. What the dumper writes, the loader reads back as the same value.
"""

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

NONE_WORDS = ("~", "null", "Null", "NULL", "none", "None", "")
"""How null is written."""
MOST_DIGITS = 1000
"""Of a whole number; the reader of JSON behind the config takes no more than 4300."""
_SCALARS = [
    ("tag:yaml.org,2002:null", f"^(?:{'|'.join(NONE_WORDS)})$", [*"~nN", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+(?:_[0-9]+)*$", [*"-+0123456789"]),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$",
        [*"-+.0123456789"],
    ),
]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (a class attribute of PyYAML)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True) if isinstance(key_node, ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} was already given on line {seen[key]}", problem_mark=key_node.start_mark
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (a class attribute of PyYAML)


for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def _construct_int(loader: yaml.SafeLoader, node: ScalarNode) -> int:
    if len(node.value) > MOST_DIGITS:
        problem = f"a number of {len(node.value)} digits; allowed: at most {MOST_DIGITS}"
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_yaml(text: str) -> Any:
    """Parse one document. Raises `ValueError` with one line: what is wrong and, where known, on which line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise ValueError(where + " ".join(str(error.problem or error.context).split())) from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def dump_yaml(value: Any) -> str:
    """Return block style, keys in the given order, other than ASCII escaped."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)
