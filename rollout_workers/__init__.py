"""Rollout workers: vLLM engines behind Ray actors that sample attempts and take new weights while they run."""
