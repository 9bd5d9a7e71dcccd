"""In the helper: whether two answers are the same in mathematics, by math-verify.

Only its LaTeX reader is used, which parses; its reader of plain expressions evaluates text as Python. The LaTeX reader
still hands each numeral to sympy as text, which sympy would evaluate: `_numeral` takes that place.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import sympy
import sympy.parsing.sympy_parser
from math_verify import LatexExtractionConfig, parse, verify
from math_verify.parser import extract_latex, parse_latex_cached

from env_workers.verifier.seal import importing

_parse_expr = sympy.parsing.sympy_parser.parse_expr
_NUMERAL = re.compile(r"\d+|(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d{1,6})?", re.ASCII)
_READERS = (LatexExtractionConfig(boxed_match_priority=0),)
_FORMS = (
    (sympy.matrices.matrixbase.MatrixBase, "a matrix"),
    (sympy.FiniteSet, "a set of values"),
    (sympy.Set, "an interval or another set"),
    (sympy.Tuple, "a tuple"),
    (sympy.core.relational.Relational, "an equation or an inequality"),
)


def warm_up() -> None:
    """Imports what answers need and builds the parser's tables."""
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


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """`given` and `key` (LaTeX) -> parsed, same, and the form of each in words (None where there is no word)."""
    try:
        given, key = _read(request["given"]), _read(request["key"])
        same = bool(given and key) and bool(verify(key, given, timeout_seconds=None, raise_on_error=False))
        return {"parsed": bool(given), "same": same, "given_form": _form(given), "key_form": _form(key)}
    finally:
        extract_latex.cache_clear()
        parse_latex_cached.cache_clear()


def _numeral(text: str, *arguments: Any, **options: Any) -> Any:
    """In the place of sympy's parse_expr. Raises ValueError for what is no numeral, but where sympy imports itself."""
    if importing():
        return _parse_expr(text, *arguments, **options)
    if not _NUMERAL.fullmatch(text):
        raise ValueError("not a numeral")
    return sympy.Integer(int(text)) if text.isdigit() else sympy.Float(text)


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
