"""`sdpo doctor`: check this machine, a cluster, or a run file, and print a fix for each problem."""
