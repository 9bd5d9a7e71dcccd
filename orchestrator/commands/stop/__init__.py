"""`sdpo stop`: end a run at its next batch boundary."""
