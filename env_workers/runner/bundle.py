"""The runner as one standard-library file, the same bytes in every sandbox, and the command that boots it.

Boot: `boot_command(python)` in a PID namespace, as its PID 1; then on its stdin the bundle's size (big-endian uint32),
the bundle, and a frame of settings (`Channel.boot`). The runner answers with a frame of facts.
"""

import hashlib
from functools import cache
from pathlib import Path

MODULES = (
    "codec",
    "framing",
    "limits",
    "stdio",
    "program",
    "asserts",
    "cleanup",
    "buffer",
    "child",
    "watch",
    "serve",
)
"""Modules of this package in the bundle, in the order in which they import each other."""

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
}
"""All of the environment of a program. A fixed hash seed keeps the order of sets, and so verdicts, the same."""

_LOAD = """\
import os
def read(size):
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return bytes(data)
exec(compile(read(int.from_bytes(read(4), "big")), "runner", "exec"), {"__name__": "runner"})
"""
# -I keeps an image's own environment and working folder out, but the hash seed comes by the environment alone.
_BOOT = """\
import os, sys
environment = {environment!r}
if "LD_LIBRARY_PATH" in os.environ:
    environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
os.execve(sys.executable, [sys.executable, "-P", "-s", "-S", "-B", "-c", {load!r}], environment)
"""

_HEADER = '''\
"""The runner: PID 1 of a sandbox. Made by env_workers/runner/bundle.py."""
import sys, types
MODULES = (
'''
_FOOTER = """\
)
def load():
    for name in ("env_workers", "env_workers.runner"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    for name, source in MODULES:
        module = sys.modules["env_workers.runner." + name] = types.ModuleType("env_workers.runner." + name)
        exec(compile(source, "runner/" + name + ".py", "exec"), module.__dict__)
    serve = sys.modules["env_workers.runner.serve"].serve
    for name in [name for name in sys.modules if name.split(".")[0] == "env_workers"]:
        del sys.modules[name]
    return serve
load()({digest!r})
"""


def boot_command(python: str) -> list[str]:
    """The command of PID 1; `python` is an interpreter of Python 3.11 or newer."""
    return [python, "-I", "-S", "-B", "-c", _BOOT.format(environment=ENVIRONMENT, load=_LOAD)]


@cache
def bundle() -> bytes:
    """The runner's bytes. They depend on the modules' sources alone."""
    folder = Path(__file__).parent
    sources = [(name, (folder / f"{name}.py").read_text("utf-8")) for name in MODULES]
    listing = "".join(f"({name!r}, {source!r}),\n" for name, source in sources)
    digest = hashlib.sha256(listing.encode()).hexdigest()
    return (_HEADER + listing + _FOOTER.format(digest=digest)).encode()


def digest() -> str:
    """SHA-256 of the sources in the bundle, in hex: the runner says the same of itself when it is ready."""
    return hashlib.sha256(bundle().split(b"MODULES = (\n", 1)[1].rsplit(b")\ndef load", 1)[0]).hexdigest()
