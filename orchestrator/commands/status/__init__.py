"""`sdpo status`: a live view of the runs in a cluster."""
