"""One rollout batch, from its tasks to the weights that are trained on it."""
