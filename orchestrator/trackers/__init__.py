"""Experiment trackers, each in a child process that a run never waits for."""
