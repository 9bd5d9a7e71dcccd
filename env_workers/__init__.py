"""Environments, sandboxes and the env worker. Imports neither torch nor vllm; ray only where an env worker is made."""
