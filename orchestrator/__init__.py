"""The loop and all that it stands on: actors, fleets, evaluation, run directory, command line."""
