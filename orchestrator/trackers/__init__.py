"""Experiment trackers: each library runs in a process of its own, which a run never waits for but at its end."""
