"""The memory of a run: what every role takes, whether it fits, what to change, and which role died for lack of it."""
