"""`sdpo tasks`: list the tasks of a run."""
