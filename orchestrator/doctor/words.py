"""Sizes in words."""

KIB, MIB, GIB = 2**10, 2**20, 2**30


def size(num_bytes: float) -> str:
    """`size(3 * 2**30) == "3.0 GiB"`, `size(2**20) == "1 MiB"`"""
    if num_bytes >= GIB:
        return f"{num_bytes / GIB:.1f} GiB" if num_bytes < 100 * GIB else f"{num_bytes / GIB:.0f} GiB"
    return f"{num_bytes / MIB:.0f} MiB"
