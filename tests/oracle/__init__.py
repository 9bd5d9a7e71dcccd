"""Formulas that only tests compare with."""
