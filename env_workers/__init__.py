"""Environments, sandboxes and the env worker. Imports neither torch nor vllm nor ray."""
