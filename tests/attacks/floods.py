# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Too much of everything: processes, memory, disk, inodes, output, descriptors, processor time."""

from tests.attacks.attack import Attack

_FILL_FOLDER = """
import os
def f(x):
    for i in range(99):
        with open(f'/tmp/{i}', 'wb') as file:
            file.write(bytes(4 << 20))
    return 2 * x
"""
_MANY_FILES = """
def f(x):
    for i in range(10**6):
        open(f'/tmp/{i}', 'w').close()
"""
_MANY_FOLDERS = """
import os
def f(x):
    try:
        for i in range(10**6):
            os.mkdir(f'/tmp/{i}')
    except OSError:
        pass
    return os.listdir('/tmp')[10**5:] or 2 * x
"""
_FILL_SHARED = """
def f(x):
    with open('/dev/shm/a', 'wb') as file:
        file.write(bytes(9 << 20))
    return 2 * x
"""
_MANY_SHARED = """
def f(x):
    for i in range(10**6):
        open(f'/dev/shm/{i}', 'w').close()
"""
_HOGS = """
import mmap, os, time
def hog():
    area = mmap.mmap(-1, 60 << 20, flags=mmap.FLAGS)
    for i in range(0, 60 << 20, 4096):
        area[i] = 1
    time.sleep(9)
def f(x):
    for _ in range(8):
        if os.fork() == 0:
            hog()
    time.sleep(9)
"""
_BURNERS = """
import os
def f(x):
    for _ in range(4):
        os.fork()
    while True:
        pass
"""
_PIPES = """
import fcntl, os
def f(x):
    try:
        while True:
            for fd in os.pipe():
                os.set_blocking(fd, False)
            try:
                fcntl.fcntl(fd, 1031, 1 << 20)
            except OSError:
                pass
            try:
                while True:
                    os.write(fd, b'x' * 4096)
            except BlockingIOError:
                pass
    except OSError as error:
        return 2 * x if error.errno == 24 else error.errno
"""
_SUBPROCESS_FLOOD = """
import os
def f(x):
    os.system('while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done')
"""
_RESULT_FLOOD = """
import os
def f(x):
    while True:
        for fd in range(3, 64):
            try:
                os.write(fd, b'x' * 60000)
            except OSError:
                pass
"""
_THREADS = (
    "import threading, time\ndef f(x):\n    while True:\n        threading.Thread(target=time.sleep, args=(9,)).start()"
)

ATTACKS = (
    Attack("fork bomb", "import os\ndef f(x):\n    while True:\n        os.fork()", ("process_limit",)),
    Attack(
        "fork bomb that swallows refusals",
        "import os\ndef f(x):\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass",
        ("process_limit", "timeout"),
    ),
    Attack("thread bomb", _THREADS, ("process_limit",)),
    Attack("memory of one process", "def f(x):\n    return len(bytearray(10**9))", ("memory_limit",)),
    Attack(
        "memory, a little at a time",
        "def f(x):\n    l = []\n    while True:\n        l.append(' ' * 9999)",
        ("memory_limit",),
    ),
    Attack(
        "memory, refusals swallowed",
        "def f(x):\n    l = []\n    while True:\n        try:\n            l.append(bytearray(10**6))\n"
        "        except MemoryError:\n            pass",
        ("memory_limit", "timeout"),
    ),
    Attack(
        "memory of many processes", _HOGS.replace("mmap.FLAGS", "mmap.MAP_PRIVATE | mmap.MAP_ANON"), ("memory_limit",)
    ),
    Attack(
        "shared memory of many processes",
        _HOGS.replace("mmap.FLAGS", "mmap.MAP_SHARED | mmap.MAP_ANON"),
        ("memory_limit",),
    ),
    Attack("memory in pipe buffers", _PIPES, ("passed",)),
    Attack("work folder filled", _FILL_FOLDER, ("disk_limit",)),
    Attack("shared memory's folder filled", _FILL_SHARED, ("disk_limit",)),
    Attack("many files in shared memory's folder", _MANY_SHARED, ("file_limit",)),
    Attack("one huge file", "def f(x):\n    open('/tmp/a', 'wb').write(bytes(40 << 20))", ("file_size_limit",)),
    Attack("many files", _MANY_FILES, ("file_limit",)),
    Attack("many folders, refusals swallowed", _MANY_FOLDERS, ("passed", "file_limit")),
    Attack(
        "descriptor flood", "import os\ndef f(x):\n    while True:\n        os.open('/dev/null', 0)", ("file_limit",)
    ),
    Attack("output flood", "def f(x):\n    while True:\n        print('x' * 1000)", ("output_limit",)),
    Attack(
        "output flood past Python",
        "import os\ndef f(x):\n    while True:\n        os.write(1, b'x' * 9999)",
        ("output_limit",),
    ),
    Attack(
        "output flood of a child",
        _SUBPROCESS_FLOOD,
        ("output_limit", "file_size_limit", "disk_limit", "timeout", "wrong_answer"),
    ),
    Attack(
        "flood of the error stream",
        "import sys\ndef f(x):\n    while True:\n        sys.stderr.write('x' * 999)",
        ("output_limit",),
    ),
    Attack("flood of the result descriptor", _RESULT_FLOOD, ("output_limit", "runtime_error")),
    Attack("huge value", "def f(x):\n    return [x] * 10**6", ("output_limit",)),
    Attack("huge printed text", "print('x' * 10**6)", ("output_limit",), script=True),
    Attack("processor time of many", _BURNERS, ("timeout", "cpu_limit", "process_limit")),
)
