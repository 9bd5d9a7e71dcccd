"""`sdpo train`: train, or resume a stopped run."""
