"""The operations that tinycoder's specifications are made of, each with its right line and its planted habits.

An operation reads one variable and writes one. Expressions name the input `{v}`; a constant is already filled in.
`wrong` are the bad habits: helpers that do not exist, wrong operators, float for integer division, syntax slips.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["int", "str", "list"]
VARIABLE: dict[Kind, str] = {"int": "x", "str": "s", "list": "xs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`family` is the operation without its constant; held-out compositions are pairs of families.

    Example: family "add", phrases ("add 3", "increase it by 3"), right "{v} + 3", wrong ("add({v}, 3)", ...).
    """

    family: str
    takes: Kind
    gives: Kind
    phrases: tuple[str, ...]
    right: str
    wrong: tuple[str, ...]


# family, gives, constants, phrases, right, wrong; "#" stands for the constant (two of them: "#" and "@").
_Row = tuple[str, Kind, Iterable[object], tuple[str, ...], str, tuple[str, ...]]

_INT: list[_Row] = [
    ("add", "int", range(1, 10), ("add #", "increase it by #"), "{v} + #", ("add({v}, #)", "{v} + '#'")),
    ("subtract", "int", range(1, 10), ("subtract #", "decrease it by #"), "{v} - #", ("# - {v}", "{v} minus #")),
    ("times", "int", range(4, 10), ("multiply it by #", "take # times it"), "{v} * #", ("{v} ** #", "{v} x #")),
    ("double", "int", "2", ("double it",), "{v} * 2", ("double({v})", "{v} ** 2")),
    ("triple", "int", "3", ("triple it",), "{v} * 3", ("triple({v})", "{v} + 3")),
    ("square", "int", "2", ("square it",), "{v} ** 2", ("{v} ^ 2", "square({v})")),
    ("cube", "int", "3", ("cube it",), "{v} ** 3", ("{v} ^ 3", "cube({v})")),
    ("negate", "int", "-", ("negate it", "flip its sign"), "-{v}", ("negate({v})", "not {v}")),
    ("absolute", "int", "-", ("take its absolute value",), "abs({v})", ("absolute({v})", "|{v}|")),
    ("halve", "int", "2", ("halve it, rounding down",), "{v} // 2", ("{v} / 2", "half({v})")),
    ("divide", "int", range(3, 10), ("divide it by #, rounding down",), "{v} // #", ("{v} / #", "{v} div #")),
    ("remainder", "int", range(3, 10), ("take its remainder by #",), "{v} % #", ("{v} mod #", "{v} / #")),
    (
        "atleast",
        "int",
        range(2, 10),
        ("take the larger of it and #",),
        "max({v}, #)",
        ("min({v}, #)", "larger({v}, #)"),
    ),
    (
        "atmost",
        "int",
        range(2, 10),
        ("take the smaller of it and #",),
        "min({v}, #)",
        ("max({v}, #)", "smaller({v}, #)"),
    ),
    ("from", "int", range(2, 10), ("subtract it from #",), "# - {v}", ("{v} - #", "from(#, {v})")),
    ("lastdigit", "int", "-", ("take its last digit",), "abs({v}) % 10", ("{v}[-1]", "last_digit({v})")),
    ("digits", "int", "-", ("count its digits",), "len(str(abs({v})))", ("len({v})", "digits({v})")),
]

_STR: list[_Row] = [
    ("reverse", "str", "-", ("reverse it",), "{v}[::-1]", ("{v}.reverse()", "reverse({v})")),
    ("upper", "str", "-", ("uppercase it",), "{v}.upper()", ("upper({v})", "{v}.toUpperCase()")),
    ("lower", "str", "-", ("lowercase it",), "{v}.lower()", ("lower({v})", "{v}.toLowerCase()")),
    ("capital", "str", "-", ("capitalise it",), "{v}.capitalize()", ("capitalise({v})", "{v}.upper()")),
    ("swapcase", "str", "-", ("swap its case",), "{v}.swapcase()", ("{v}.swap()", "{v}.lower()")),
    ("first", "str", range(2, 6), ("keep its first # letters",), "{v}[:#]", ("{v}[#]", "first({v}, #)")),
    ("last", "str", range(2, 6), ("keep its last # letters",), "{v}[-#:]", ("{v}[#:]", "last({v}, #)")),
    ("dropfirst", "str", range(2, 5), ("drop its first # letters",), "{v}[#:]", ("{v}[:#]", "drop({v}, #)")),
    ("droplast", "str", range(2, 5), ("drop its last # letters",), "{v}[:-#]", ("{v}[-#]", "{v} - #")),
    ("repeat", "str", range(2, 6), ("repeat it # times",), "{v} * #", ("{v} ** #", "repeat({v}, #)")),
    ("remove", "str", "aeiours", ("remove every #",), "{v}.replace('#', '')", ("{v}.remove('#')", "{v} - '#'")),
    (
        "replace",
        "str",
        ("ao", "ei", "ie", "oa", "rl", "nm"),
        ("replace every # with @",),
        "{v}.replace('#', '@')",
        ("{v}.replace('@', '#')", "replace({v}, '#', '@')"),
    ),
    ("end", "str", "!?*.", ("put # at the end",), "{v} + '#'", ("'#' + {v}", "{v}.append('#')")),
    ("front", "str", "!?*.", ("put # at the front",), "'#' + {v}", ("{v} + '#'", "{v}.prepend('#')")),
    ("sortletters", "str", "-", ("sort its letters",), "''.join(sorted({v}))", ("sorted({v})", "{v}.sort()")),
    ("length", "int", "-", ("take its length",), "len({v})", ("{v}.length", "length({v})")),
    ("count", "int", "aeiors", ("count every #",), "{v}.count('#')", ("{v}.count(#)", "count({v}, '#')")),
]

_EACH = "[{e} for n in {{v}}]"
_KEEP = "[n for n in {{v}} if {e}]"

_LIST: list[_Row] = [
    ("sort", "list", "-", ("sort it",), "sorted({v})", ("{v}.sort()", "sort({v})")),
    ("sortdown", "list", "-", ("sort it downwards",), "sorted({v}, reverse=True)", ("sorted({v})", "sort({v}, -1)")),
    ("reverse", "list", "-", ("reverse it",), "{v}[::-1]", ("{v}.reverse()", "reverse({v})")),
    (
        "even",
        "list",
        "-",
        ("keep the even ones",),
        _KEEP.format(e="n % 2 == 0"),
        (_KEEP.format(e="n % 2 = 0"), "even({v})"),
    ),
    (
        "odd",
        "list",
        "-",
        ("keep the odd ones",),
        _KEEP.format(e="n % 2 == 1"),
        (_KEEP.format(e="n / 2 == 1"), "odd({v})"),
    ),
    (
        "above",
        "list",
        range(1, 8),
        ("keep those above #",),
        _KEEP.format(e="n > #"),
        (_KEEP.format(e="n < #"), "{v} > #"),
    ),
    (
        "below",
        "list",
        range(3, 10),
        ("keep those below #",),
        _KEEP.format(e="n < #"),
        (_KEEP.format(e="n > #"), "filter({v} < #)"),
    ),
    ("addeach", "list", range(1, 8), ("add # to each",), _EACH.format(e="n + #"), ("{v} + #", "[n + # in {v}]")),
    (
        "takeeach",
        "list",
        range(1, 8),
        ("subtract # from each",),
        _EACH.format(e="n - #"),
        ("{v} - #", _EACH.format(e="# - n")),
    ),
    (
        "timeseach",
        "list",
        range(2, 8),
        ("multiply each by #",),
        _EACH.format(e="n * #"),
        ("{v} * #", _EACH.format(e="n ** #")),
    ),
    ("squareeach", "list", "2", ("square each",), _EACH.format(e="n ** 2"), (_EACH.format(e="n ^ 2"), "square({v})")),
    ("negateeach", "list", "-", ("negate each",), _EACH.format(e="-n"), ("-{v}", _EACH.format(e="not n"))),
    ("first", "list", range(2, 5), ("keep the first #",), "{v}[:#]", ("{v}[#]", "first({v}, #)")),
    ("last", "list", range(2, 5), ("keep the last #",), "{v}[-#:]", ("{v}[#:]", "last({v}, #)")),
    ("dropfirst", "list", range(1, 4), ("drop the first #",), "{v}[#:]", ("{v}[:#]", "drop({v}, #)")),
    ("append", "list", range(1, 8), ("append #",), "{v} + [#]", ("{v}.append(#)", "append({v}, #)")),
    ("sum", "int", "-", ("sum it",), "sum({v})", ("{v}.sum()", "total({v})")),
    ("max", "int", "-", ("take the largest",), "max({v})", ("{v}.max()", "largest({v})")),
    ("min", "int", "-", ("take the smallest",), "min({v})", ("{v}.min()", "smallest({v})")),
    ("size", "int", "-", ("count them",), "len({v})", ("{v}.length", "size({v})")),
    ("head", "int", "-", ("take the first",), "{v}[0]", ("{v}[1]", "{v}.first()")),
    ("tail", "int", "-", ("take the last",), "{v}[-1]", ("{v}[1]", "{v}.last()")),
]


def _expand(takes: Kind, rows: list[_Row]) -> Iterator[Operation]:
    for name, gives, constants, phrases, right, wrong in rows:
        for constant in map(str, constants):

            def fill(text: str, constant: str = constant) -> str:
                return text.replace("#", constant[0]).replace("@", constant[-1])

            yield Operation(
                family=f"{takes}.{name}",
                takes=takes,
                gives=gives,
                phrases=tuple(map(fill, phrases)),
                right=fill(right),
                wrong=tuple(map(fill, wrong)),
            )


OPERATIONS: tuple[Operation, ...] = (*_expand("int", _INT), *_expand("str", _STR), *_expand("list", _LIST))
"""Every operation with every constant, in a fixed order."""
