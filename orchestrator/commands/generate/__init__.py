"""`sdpo generate`: sample and judge batches, and record them."""
