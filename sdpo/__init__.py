"""Messages, run config and the algorithm of SDPO: pure functions and types. Nothing here starts a process."""

import sys

MAX_INT_DIGITS = 100_000
"""Decimal digits of an integer in texts that are read or written; Python's own limit of 4,300 is below some tests'."""
if 0 < sys.get_int_max_str_digits() < MAX_INT_DIGITS:
    sys.set_int_max_str_digits(MAX_INT_DIGITS)

__version__ = "0.2.0"
