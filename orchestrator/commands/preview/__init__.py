"""`sdpo preview`: judge an answer without a model."""
