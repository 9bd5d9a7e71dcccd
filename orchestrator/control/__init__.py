"""How a run is asked to stop: by signals, the control actor or the stop file."""
