"""Tool use as matching: the calls that a model writes against the ones that were expected."""
