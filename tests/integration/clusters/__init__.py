"""Programs that tests start: each makes a Ray cluster of several nodes on this machine and a real env pool on it."""
