"""What stands beside the value of an answer: a unit, money, percent, degrees, am or pm, and the base of numerals.

Marks are read here and compared by themselves: the reader of LaTeX would leave them out, and 5 cm would be 5 m.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from env_workers.units import Unit, plain_unit, unit_of

_SPACE = re.compile(r"\\[,;:!> ]|~|\\q?quad(?![A-Za-z])|\s+")
_WHOLE_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|textrm)\s*\{([^{}]*\d[^{}]*)\}")
_SENTENCE_END = re.compile(r"(?<=[\w})%\]!°$])\s*[.,;:]+$")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:(?: |,|\{,\})\d{3})+(?:\.\d+)?", re.ASCII)
_NUMBER = re.compile(r"\d|\\pi|\\frac|\\sqrt")
_SUBSCRIPT = r"\s*_\s*(?:\{([^{}]*|[^{}]*\{[^{}]*\})\}|(\d))"
_BASE = re.compile(rf"(?<![A-Za-z0-9\\_}}])([0-9][0-9A-Za-z]*|[A-F][0-9A-F]*){_SUBSCRIPT}")
_PREFIX = re.compile(r"([+-]?)\s*(\\?\$|[€£¥₹]|\\text\s*\{\s*(?:Rs|USD|EUR)\.?\s*\}|Rs\.?(?![a-z]))\s*(?=[-\d.\\])")
_ORDINAL = re.compile(r"(?<=\d)\s*(?:\^\s*)?\{?\s*(?:\\(?:text|mathrm|mbox|textrm)\s*\{\s*)?(?:st|nd|rd|th)\s*\}*$")
_PERCENT = re.compile(r"\s*(?:\\?%|\\(?:text|mathrm)\s*\{\s*(?:\\?%|percent|pct)\s*\}|(?<![A-Za-z\\])(?:percent|pct))$")
_DEGREE = re.compile(
    r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![A-Za-z]))\s*(?:\\(?:text|mathrm)\s*\{\s*)?([CF]?)\s*\}?$"
)
_POWER = r"(?:\s*\^\s*\{?\s*(\d)\s*\}?|([²³]))?"
_TEXT = re.compile(rf"\s*\\(?:text|mbox|mathrm|textrm|textit|hbox)\s*\{{([^{{}}\d]*)\}}{_POWER}$")
_WORDS = re.compile(rf"(?<=[\d}}) ])(\s*)((?<![A-Za-z\\])[A-Za-z][A-Za-z./ ]*){_POWER}$")
_POWERS = {"²": "2", "³": "3"}
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar)\s*(?:\{\s*(\d+)\s*\}|(\d))", re.ASCII)
_BARE_POINT = re.compile(r"(?<=\d)\.(?![\d.\\])")
_LIST = re.compile(r",(?!\d{3}(?!\d))|;|(?:and|or)(?![a-z])")
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_BASES |= {"ten": "10", "twelve": "12", "sixteen": "16"}
_NO_MARK: frozenset[str] = frozenset({"of", "and", "or"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """An answer taken apart. `value` is LaTeX without marks; `bases` are those of its numerals that are not of ten."""

    value: str
    unit: Unit | None = None
    bases: tuple[str, ...] = ()


def read_marks(text: str) -> Marked:
    """Take an answer apart: blanks of LaTeX become blanks, and full stops after the answer go."""
    text = _SENTENCE_END.sub("", _SPACE.sub(" ", text).strip())
    whole = _WHOLE_TEXT.fullmatch(text)
    text = _BARE_POINT.sub("", text)
    text = _REPEATING.sub(_fraction, text if whole is None else whole[1].strip())
    value, unit = _split_unit(text)
    if _THOUSANDS.fullmatch(value):
        value = re.sub(r"[ ,{}]", "", value)
    bases = [_base(match[2] or match[3]) for match in _BASE.finditer(value)]
    value = _BASE.sub(lambda match: match[1] if _base(match[2] or match[3]) == "10" else match[0], value)
    return Marked(value=value, unit=unit, bases=tuple(sorted(base for base in bases if base != "10")))


def ways_to_compare(given: Marked, key: Marked) -> tuple[tuple[str, str], ...]:
    """Return pairs (given, key) of values, one of which must be equal; none where the marks already differ.

    A mark that only one of the two has is the question's (50 for 50 percent), or counts by its value (1/2 for 50
    percent, a quarter of pi for 45 degrees). A base belongs to the number and is never left out.
    """
    if given.bases != key.bases:
        return ()
    if given.unit is None or key.unit is None:
        return tuple((g, k) for g in _values(given) for k in _values(key))
    if {given.unit.dimension, key.unit.dimension} == {"degree", "radian"}:
        return ((_values(given)[-1], _values(key)[-1]),)
    if given.unit.dimension != key.unit.dimension:
        return ()
    if given.unit.dimension in ("am", "pm") and given.value.replace(" ", "") != key.value.replace(" ", ""):
        return ()
    return ((_scaled(given.value, given.unit.factor / key.unit.factor), key.value),)


def _values(answer: Marked) -> tuple[str, ...]:
    dimension = None if answer.unit is None else answer.unit.dimension
    if dimension == "percent":
        return answer.value, _scaled(answer.value, Fraction(1, 100))
    if dimension == "degree":
        return answer.value, f"\\frac{{({answer.value}) \\pi}}{{180}}"
    return (answer.value,)


def _scaled(value: str, factor: Fraction) -> str:
    return value if factor == 1 else f"({value}) \\cdot \\frac{{{factor.numerator}}}{{{factor.denominator}}}"


def _split_unit(text: str) -> tuple[str, Unit | None]:
    """Return the value and its unit. A text without a number has none: it is the answer itself."""
    is_list = _LIST.search(text.replace("{,}", "")) is not None
    prefix = None if is_list else _PREFIX.match(text)
    if prefix is not None:
        return prefix[1] + text[prefix.end() :], unit_of(re.sub(r"\\text|[\\{}. ]", "", prefix[2]))
    for pattern in () if is_list else (_ORDINAL, _PERCENT, _DEGREE):
        match = pattern.search(text)
        if match is not None and _NUMBER.search(text[: match.start()]):
            name = {_ORDINAL: "ordinal", _PERCENT: "percent"}.get(pattern) or f"degree{match[1]}"
            return text[: match.start()].strip(), unit_of(name)
    value, name = _split_text(text)
    if name and _NUMBER.search(value):
        return value, unit_of(name)
    match = _WORDS.search(text)
    if match is not None and _NUMBER.search(text[: match.start()]):
        is_apart = bool(match[1]) or text[match.start() - 1] == " "
        unit = plain_unit(match[2].strip() + _power(match[3], match[4]), is_apart=is_apart)
        if unit is not None:
            return text[: match.start()].strip(), unit
    return text, None


def _split_text(text: str) -> tuple[str, str]:
    """Return the value and the words in \\text{} after it, joined where they are divided: `m/s`."""
    name = ""
    while (match := _TEXT.search(text)) is not None and match[1].strip().lower() not in _NO_MARK:
        name = f"{match[1].strip()}{_power(match[2], match[3])}{name}"
        text = text[: match.start()].rstrip()
        if not text.endswith("/"):
            break
        text, name = text[:-1].rstrip(), f"/{name}"
    return text, name


def _power(digit: str | None, sign: str | None) -> str:
    power = digit or _POWERS.get(sign or "", "")
    return f"^{power}" if power else ""


def _base(text: str) -> str:
    name = re.sub(r"\\(?:text|mathrm)|[{}\s]|base", "", text).lower()
    return _BASES.get(name, name)


def _fraction(match: re.Match[str]) -> str:
    """Return a repeating decimal number as a fraction."""
    whole, once, again = match[1] or "0", match[2], match[3] or match[4]
    above = int(whole + once + again) - int(whole + once)
    return f"\\frac{{{above}}}{{{(10 ** len(again) - 1) * 10 ** len(once)}}}"
