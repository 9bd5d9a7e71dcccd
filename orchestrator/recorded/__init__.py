"""Rollout batches in files: written by a run, and read as the source of another."""
