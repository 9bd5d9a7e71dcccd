"""The Ray cluster: connecting to it, what it can place, and the reservations of a run."""
