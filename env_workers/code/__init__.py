"""The code environment: extract the program, run its tests in a sandbox, compare, answer with words."""
