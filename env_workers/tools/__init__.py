"""Tool calls: how they are written, matched against expected ones, and executed."""
