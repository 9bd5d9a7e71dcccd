"""Units of measure and money by name, with what they are worth in the first unit of their kind."""

import re
from dataclasses import dataclass
from fractions import Fraction

_KINDS: dict[str, dict[str, str]] = {
    "length": {
        "m metre meter": "1",
        "mm millimetre millimeter": "1/1000",
        "cm centimetre centimeter": "1/100",
        "dm decimetre decimeter": "1/10",
        "km kilometre kilometer": "1000",
        "in inch inches": "0.0254",
        "ft foot feet": "0.3048",
        "yd yard": "0.9144",
        "mi mile": "1609.344",
    },
    "mass": {
        "g gm gram": "1",
        "mg milligram": "1/1000",
        "kg kilogram": "1000",
        "lb lbs pound": "453.59237",
        "oz ounce": "28.349523125",
    },
    "time": {
        "s sec second": "1",
        "ms millisecond": "1/1000",
        "min minute": "60",
        "h hr hour": "3600",
        "day": "86400",
        "week": "604800",
    },
    "volume": {"l liter litre": "1", "ml milliliter millilitre cc": "1/1000"},
    "dollar": {"$ dollar usd": "1", "cent ¢": "1/100"},
    "euro": {"€ euro eur": "1"},
    "pound sterling": {"£ gbp": "1"},
    "yen": {"¥ yen": "1"},
    "rupee": {"₹ rupee rs": "1"},
    "percent": {"percent pct %": "1"},
    "degree": {"degree deg °": "1"},
    "celsius": {"degreec celsius": "1"},
    "fahrenheit": {"degreef fahrenheit": "1"},
    "radian": {"radian rad": "1"},
    "ordinal": {"ordinal": "1"},
    "am": {"am": "1"},
    "pm": {"pm": "1"},
}
_UNITS = {
    name: (kind, Fraction(factor))
    for kind, units in _KINDS.items()
    for names, factor in units.items()
    for name in names.split()
}
_POWERS = (("square", 2), ("sq", 2), ("squared", 2), ("cubic", 3), ("cu", 3), ("cubed", 3))
_SHORT = {"mph": "mile/hour", "kmh": "km/hour", "kmph": "km/hour", "kph": "km/hour", "mps": "m/s", "fps": "ft/s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """`dimension` is what is measured, or the words themselves where they are no known unit; `factor` its worth."""

    dimension: str
    factor: Fraction = Fraction(1)


def unit_of(words: str) -> Unit | None:
    """Return the unit that words name; None for nothing and for mere `units`."""
    text = re.sub(r"\bper\b", "/", words.lower().replace("\\", "").replace(".", "")).strip(" -")
    text = _SHORT.get(text, text)
    parts = [_part(part) for part in text.split("/")]
    if not text or not all(dimension for dimension, _, _ in parts[:1]):
        return None
    dimension = "/".join(f"{name}^{power}" if power != 1 else name for name, _, power in parts)
    factor = parts[0][1]
    for _, below, _ in parts[1:]:
        factor /= below
    return Unit(dimension=dimension, factor=factor)


def plain_unit(words: str, *, is_apart: bool) -> Unit | None:
    """Return the unit that words outside of \\text{} name; None where they are variables: 3ab, 5m.

    `is_apart`: there is a blank between the number and the words, which makes a unit of a single letter.
    """
    text = re.sub(r"\bper\b", "/", words.lower().replace(".", "")).strip()
    names = [_part(part)[0] for part in _SHORT.get(text, text).split("/")]
    if any(name and name not in _KINDS for name in names) or (len(text.split("^")[0]) == 1 and not is_apart):
        return None
    return unit_of(words)


def _part(text: str) -> tuple[str, Fraction, int]:
    """Return dimension, factor and power of one unit: `square cm`, `cm^2`, `hours`."""
    text, _, exponent = text.strip().partition("^")
    power = int(exponent) if exponent.isdigit() else 1
    words = text.split()
    for word, number in _POWERS:
        if len(words) > 1 and word in (words[0], words[-1]):
            words.remove(word)
            power *= number
    name = _singular(" ".join(words))
    if name == "unit":
        return "", Fraction(1), 1
    kind, factor = _UNITS.get(name, (name, Fraction(1)))
    return kind, factor**power, power


def _singular(name: str) -> str:
    if name in _UNITS:
        return name
    for ending in ("s", "es"):
        if name.removesuffix(ending) in _UNITS:
            return name.removesuffix(ending)
    return name.removesuffix("s")
