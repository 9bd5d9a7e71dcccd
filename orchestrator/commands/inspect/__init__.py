"""`sdpo inspect`: show recorded attempts token by token in the terminal."""
