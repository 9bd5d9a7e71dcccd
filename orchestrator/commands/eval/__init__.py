"""`sdpo eval`: measure a model on tasks."""
