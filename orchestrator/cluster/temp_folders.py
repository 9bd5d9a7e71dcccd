"""The folders for temporary files that Ray and the engines of this machine use, and why one cannot be used."""

import os
import tempfile
from collections.abc import Iterator, Mapping

from sdpo.errors import ConfigError

LONGEST_SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux."""
RAY_SOCKET = "/ray/session_2026-11-28_20-40-00_123456_1234567/sockets/plasma_store"
"""What Ray adds to its folder for a socket, with the process id of the driver in up to seven digits."""
ENGINE_SOCKET = "/sdpo-rollout-12345678/12345678-1234-1234-1234-123456789012"
"""What a rollout worker adds to TMPDIR for a socket of its engine."""


def ray_folder(environ: Mapping[str, str]) -> str:
    """Return the folder below which Ray makes its sessions, as Ray finds it."""
    return environ.get("RAY_TMPDIR", environ.get("TMPDIR", "/tmp"))


def unusable_folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each variable whose folder a run cannot use: blank, relative, too long, or not writable.

    Python's own rule for temporary files falls back to /tmp where TMPDIR cannot be written; Ray does not.
    """
    names = [name for name in ("RAY_TMPDIR", "TMPDIR") if name in environ]
    for name in names:
        folder, added = environ[name], RAY_SOCKET if name == names[0] else ENGINE_SOCKET
        allowed = LONGEST_SOCKET_BYTES - len(added)
        if not os.path.isabs(folder):
            yield f"{name}={folder}: not an absolute path; allowed: an absolute path, or unset {name}"
        elif (num_bytes := len(os.fsencode(folder.rstrip("/")))) > allowed:
            yield (
                f"{name}={folder}: {num_bytes} bytes long, and the sockets in it may have {LONGEST_SOCKET_BYTES}; "
                f"allowed: a path of at most {allowed} bytes, or unset {name}"
            )
        elif reason := _why_not_writable(folder):
            yield f"{name}={folder}: cannot be written to: {reason}; allowed: a folder that can, or unset {name}"


def check_folders(environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` with the first line of `unusable_folders`, where Ray will be started on this machine."""
    if not environ.get("RAY_ADDRESS"):
        for line in unusable_folders(environ):
            raise ConfigError(line)


def _why_not_writable(folder: str) -> str:
    """Return why no file can be made in the folder, or in its nearest parent that exists; "" if one can."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""
