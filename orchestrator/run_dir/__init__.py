"""The run directory: its files, its lock, its checkpoints, and the readers of them."""
