"""Calls of tools as models write them: strict JSON, two notations, JSON schemas."""
