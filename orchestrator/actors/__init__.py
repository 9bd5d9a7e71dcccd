"""The actors of a run: how they are started, called, replaced and stopped."""
