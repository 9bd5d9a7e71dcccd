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
    "system_calls",
    "packages",
    "stdio",
    "answers",
    "program",
    "script",
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
import hashlib, os
def read(size):
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return bytes(data)
runner = read(int.from_bytes(read(4), "big"))
digest = hashlib.sha256(runner).hexdigest()
exec(compile(runner, "runner", "exec"), {"__name__": "runner", "digest": digest})
"""
# -I keeps an image's own environment and working folder out, but the hash seed comes by the environment alone.
_BOOT = """\
import os, sys
environment = {environment!r}
if "LD_LIBRARY_PATH" in os.environ:
    environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
os.execve(sys.executable, [sys.executable, "-P", "-s", "-S", "-B", "-c", {load!r}], environment)
"""

# A program finds imported what the first two lines import for it, and what the next two import for the runner. -S
# leaves out all that `site` does; what it adds to the built-in names (exit, quit, help, ...) is added here.
_HEADER = '''\
"""The runner: PID 1 of a sandbox. Made by env_workers/runner/bundle.py."""
import array, bisect, collections, copy, dataclasses, datetime, decimal, enum, fractions, functools, hashlib, heapq
import itertools, math, operator, re, statistics, string, textwrap, traceback, typing
import ast, contextlib, ctypes, errno, gc, io, json, marshal, mmap, os, random, resource, select, shutil, signal, socket
import struct, sys, types, warnings
import site
site.setquit()
site.setcopyright()
site.sethelper()
MODULES = (
'''
# A page of memory that PID 1 or its child writes after the fork is copied, and that is most of what an execution costs.
# A reference count is a write: so the runner's own objects are to lie together, not in holes between others.
_FOOTER = """\
)
def fill_holes():
    fillers = []
    for size in range(48, 513, 16):
        blocks, run, last = [], 0, 0
        while run < 2**13 // size and len(blocks) < 4000:
            blocks.append(bytes(size - 40))
            run = run + 1 if id(blocks[-1]) == last + size else 0
            last = id(blocks[-1])
        fillers.append(blocks)
    return fillers
def load():
    for name in ("env_workers", "env_workers.runner"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    codes = [(name, marshal.dumps(compile(source, "runner/" + name + ".py", "exec"))) for name, source in MODULES]
    gc.collect()
    sys.runner_memory = fill_holes()
    for name, code in codes:
        module = sys.modules["env_workers.runner." + name] = types.ModuleType("env_workers.runner." + name)
        exec(marshal.loads(code), module.__dict__)
    serve = sys.modules["env_workers.runner.serve"].serve
    for name in [name for name in sys.modules if name.split(".")[0] == "env_workers"]:
        del sys.modules[name]
    return serve
load()(globals().get("digest", ""))
"""


def boot_command(python: str) -> list[str]:
    """Return the command of PID 1; `python` is an interpreter of Python 3.11 or newer."""
    return [python, "-I", "-S", "-B", "-c", _BOOT.format(environment=ENVIRONMENT, load=_LOAD)]


@cache
def bundle() -> bytes:
    """Return the runner's bytes. They depend on the modules' sources alone."""
    folder = Path(__file__).parent
    sources = [(name, (folder / f"{name}.py").read_text("utf-8")) for name in MODULES]
    listing = "".join(f"({name!r}, {source!r}),\n" for name, source in sources)
    return (_HEADER + listing + _FOOTER).encode()


def digest() -> str:
    """Return the SHA-256 of the bundle, in hex; the runner reports the same when it is ready."""
    return hashlib.sha256(bundle()).hexdigest()
