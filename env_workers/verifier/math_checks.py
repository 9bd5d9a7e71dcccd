"""In the helper: whether two answers are the same in mathematics, by math-verify.

Only its LaTeX reader is used, which parses; its reader of plain expressions evaluates text as Python. The LaTeX reader
still hands each numeral to sympy as text, which sympy would evaluate: `_numeral` replaces that, and keeps decimals
exact. Numbers are compared by `_same_number`, which replaces math-verify's absolute bounds.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import math_verify.grader
import sympy
import sympy.parsing.sympy_parser
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from math_verify.parser import extract_latex, parse_latex_cached

from env_workers.verifier.seal import importing

_parse_expr = sympy.parsing.sympy_parser.parse_expr
_NUMERAL = re.compile(r"\d+|(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d{1,6})?", re.ASCII)
_READERS = (
    LatexExtractionConfig(
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
        ),
    ),
)
MIN_ROUNDED_DIGITS = 6
"""Significant digits that a decimal number must have to stand for a number that it is a rounding of."""
_DIGITS = 30
_TINY = sympy.Rational(1, 10**25)
_places: dict[Any, int] = {}
"""The decimal numbers that the two answers hold as numerals -> how many digits they have after the point."""
_FORMS = (
    (sympy.matrices.matrixbase.MatrixBase, "a matrix"),
    (sympy.FiniteSet, "a set of values"),
    (sympy.Set, "an interval or another set"),
    (sympy.Tuple, "a tuple"),
    (sympy.core.relational.Relational, "an equation or an inequality"),
)


def warm_up() -> None:
    """Import what answers need and builds the parser's tables."""
    logging.disable(logging.CRITICAL)
    for one, other in (
        (r"\frac{1}{2}", "0.5"),
        ("x^2 - 1", "(x-1)(x+1)"),
        ("[0, 1)", r"(-\infty, 2]"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"),
        (r"\sqrt{2}\sin(\pi/3)", r"\log_2 8"),
        ("x = 1", r"\{1, 2\}"),
    ):
        answer({"given": one, "key": other})
    sympy.parsing.sympy_parser.parse_expr = _numeral
    math_verify.grader.sympy_numeric_eq = _same_number


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compare `given` with `key` (LaTeX); return parsed, same, and the form of each in words, None without a word."""
    try:
        given, key = _read(request["given"]), _read(request["key"])
        same = bool(given and key) and bool(verify(key, given, timeout_seconds=None, raise_on_error=False))
        return {"parsed": bool(given), "same": same, "given_form": _form(given), "key_form": _form(key)}
    finally:
        _places.clear()
        extract_latex.cache_clear()
        parse_latex_cached.cache_clear()


def _numeral(text: str, *arguments: Any, **options: Any) -> Any:
    """Replace sympy's parse_expr. Raises ValueError for what is no numeral, but where sympy imports itself."""
    if importing():
        return _parse_expr(text, *arguments, **options)
    if not _NUMERAL.fullmatch(text):
        raise ValueError("not a numeral")
    if text.isdigit():
        return sympy.Integer(int(text))
    number = sympy.Rational(text)
    decimals = re.split("[eE]", text.partition(".")[2])[0]
    if "e" not in text.lower() and len(text.replace(".", "").lstrip("0")) >= MIN_ROUNDED_DIGITS:
        _places[number] = max(len(decimals), _places.get(number, 0))
    return number


def _same_number(one: Any, other: Any, float_rounding: int, numeric_precision: int) -> bool:
    """Replace math-verify's comparison of numbers: exact, and a decimal number may round the other one.

    It is a rounding with at least MIN_ROUNDED_DIGITS significant digits and an error below one of its last place.
    """
    matrices = (sympy.MatrixBase, sympy.MatrixExpr)
    if isinstance(one, matrices) and isinstance(other, matrices):
        one, other = one.doit(), other.doit()
        explicit = isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase)
        return (
            explicit
            and one.shape == other.shape
            and all(_same_number(*pair, 0, 0) for pair in zip(one.flat(), other.flat(), strict=True))
        )
    percents = [math_verify.grader.get_pct_val(number, number) for number in (one, other)]
    if percents != [one, other] and percents[0] == percents[1]:
        return True
    one, other = one.doit(), other.doit()
    if one == other:
        return True
    if one.free_symbols or other.free_symbols:
        return False
    if one.is_Rational and other.is_Rational:
        difference: Any = abs(one - other)
        scale: Any = 0
    else:
        difference = abs((one - other).evalf(_DIGITS))
        scale = max(abs(one.evalf(_DIGITS)), abs(other.evalf(_DIGITS)))
    if not (difference.is_finite and (scale == 0 or scale.is_finite)):
        return False
    bounds = [sympy.Rational(1, 10 ** _places[n]) for n in (abs(one), abs(other)) if n in _places]
    return bool(difference <= scale * _TINY or any(difference < bound for bound in bounds))


def _read(text: str) -> list[Any]:
    return list(parse(f"\\boxed{{{text}}}", _READERS, fallback_mode="no_fallback", parsing_timeout=None))


def _form(expressions: list[Any]) -> str | None:
    expression = expressions[0] if expressions else None
    for kind, name in _FORMS:
        if isinstance(expression, kind):
            return name
    if isinstance(expression, sympy.Expr):
        return "an expression with variables" if expression.free_symbols else "a number"
    return None
