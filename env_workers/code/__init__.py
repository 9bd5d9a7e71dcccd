"""The code environment: finds the program, runs its tests in a sandbox, compares, and gives feedback."""
