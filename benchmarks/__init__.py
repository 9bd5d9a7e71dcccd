"""Measurements: speed, memory, learning. Nothing here is imported by the product."""
