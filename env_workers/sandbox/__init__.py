"""Sandboxes: their common base, the kinds, the pool of an env worker, and the filter of system calls."""
