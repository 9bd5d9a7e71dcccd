"""What a run tells Prometheus: the catalogue of its metrics, and instruments made from it."""
