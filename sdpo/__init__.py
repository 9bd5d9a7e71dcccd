"""The vocabulary and the algorithm of SDPO. Pure functions and types; nothing here starts a process."""
