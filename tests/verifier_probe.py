"""What a hostile text would do in the verifier's helper, if a library let it. Served by env_workers.verifier.child."""

import ctypes
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any


def warm_up() -> None:
    """Nothing to import."""


def answer(request: Mapping[str, Any]) -> Any:
    what = request["do"]
    attempts = {
        "socket": lambda: socket.socket(),
        "fork": lambda: os.fork(),
        "write": lambda: os.open(request["path"], os.O_WRONLY | os.O_CREAT),
        "kill": lambda: os.kill(request["pid"], signal.SIGKILL),
        "peek": lambda: os.open(f"/proc/{request['pid']}/mem", os.O_RDWR),
    }
    if what in attempts:
        try:
            attempts[what]()
        except OSError as error:
            return type(error).__name__
        return "done"
    return _misbehave(what)


def _misbehave(what: str) -> Any:
    if what == "spin":
        while True:
            pass
    if what == "hoard":
        return len("x" * 2**30)
    if what == "recurse":
        return _misbehave(what) or None
    if what in ("eval", "swallow"):
        try:
            return eval("1 + 1")
        except BaseException:
            if what == "eval":
                raise
            return "swallowed"
    if what == "crash":
        ctypes.string_at(0)
    if what == "raise":
        raise ValueError
    return {"pid": os.getpid(), "environment": sorted(os.environ)}.get(what, what)
