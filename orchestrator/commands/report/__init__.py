"""`sdpo report`: one HTML page for one or several runs."""
