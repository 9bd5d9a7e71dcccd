"""Sandboxes: the protocol, the bubblewrap one, and PID 1 inside it (`init`, standard library only)."""
