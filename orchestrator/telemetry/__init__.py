"""Spans, Prometheus metrics and traces of a run, and the deadlines of its waits."""
