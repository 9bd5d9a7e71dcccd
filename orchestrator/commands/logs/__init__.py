"""`sdpo logs`: the log lines of all actors of a run, merged by time."""
