# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Processes and files meant for the next program to meet."""

from tests.attacks.attack import DETACHED, Attack, program

_DAEMON = DETACHED + "import time\ndef f(x):\n    detached(lambda: time.sleep(0.01))\n    return 2 * x"
_WRITER = DETACHED + (
    "def f(x):\n    detached(lambda: open(f'/tmp/{os.urandom(4).hex()}', 'w').close())\n    return 2 * x"
)
_FORKER = DETACHED + (
    "import signal\ndef again():\n    signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "    if os.fork():\n        os._exit(0)\ndef f(x):\n    detached(again)\n    return 2 * x"
)
_STOPPED = (
    "import os, signal\ndef f(x):\n    if (pid := os.fork()) == 0:\n        os.kill(os.getpid(), signal.SIGSTOP)\n"
    "    os.waitpid(pid, os.WUNTRACED)\n    return 2 * x"
)
_ZOMBIES = "import os\ndef f(x):\n    for _ in range(5):\n        if os.fork() == 0:\n            os._exit(0)\n    return 2 * x"
_SUBREAPER = program("""
    def f(x):
        _libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        _libc.prctl(15, b'python3 -m pid1', 0, 0, 0)
        if os.fork() == 0:
            os.setsid()
            _libc.prctl(36, 1, 0, 0, 0)
            if os.fork() == 0:
                time.sleep(99)
            time.sleep(99)
        return 2 * x
""")
_AT_EXIT = (
    "import atexit, os, time\ndef later():\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(99)\n"
    "atexit.register(later)\ndef f(x):\n    os.register_at_fork(after_in_parent=later)\n    return 2 * x"
)
_LATE_RESULT = (
    DETACHED
    + """
import time
forged = b'!{"status": "returned", "value": 6}\\n'
def f(x):
    def late():
        time.sleep(0.002)
        for fd in range(64):
            try:
                os.write(fd, forged)
            except OSError:
                pass
    detached(late)
    return -1
"""
)
_LITTER = r"""
import os, socket
def f(x):
    os.umask(0)
    os.mkdir(f'/tmp/{x}')
    os.chdir(f'/tmp/{x}')
    for name in (b'a\nb', b'\xff\xfe', b'-rf', b'x' * 255, b' ', b'.hidden', '\u202e'.encode()):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0))
    os.symlink('/', 'root')
    os.symlink('loop', 'loop')
    os.symlink('/proc/1', f'/tmp/one{x}')
    os.mkfifo('fifo')
    os.link('fifo', 'hard')
    socket.socket(socket.AF_UNIX).bind('socket')
    with open('sparse', 'wb') as file:
        file.truncate(10 << 20)
    return 2 * x
"""
_NO_PERMISSION = """
import os
def f(x):
    os.makedirs(f'/tmp/{x}/a/b')
    open(f'/tmp/{x}/a/b/c', 'w').close()
    for path in (f'/tmp/{x}/a/b', f'/tmp/{x}/a', f'/tmp/{x}', '/tmp') if x == 10 else ():
        os.chmod(path, 0)
    return 2 * x
"""
_DEEP = """
import os
def f(x):
    here = os.open('/tmp', os.O_RDONLY)
    for _ in range(1500):
        os.mkdir('d')
        os.chdir('d')
    os.fchdir(here)
    os.rename('d', f'deep{x}')
    return 2 * x
"""
_MARK = """
import os
def f(x):
    for name in ('user.mark', 'system.posix_acl_default'):
        try:
            os.setxattr('/tmp', name, bytes.fromhex('0200000001000700ffffffff04000500ffffffff20000500ffffffff'))
        except OSError:
            pass
    os.chmod('/tmp', 0o1777)
    os.utime('/tmp', (123456, 123456))
    return 2 * x
"""
_SHARED = """
import ctypes, os
from multiprocessing import resource_tracker, shared_memory
def f(x):
    block = shared_memory.SharedMemory(f'left-{x}', create=True, size=4096)
    resource_tracker.unregister(block._name, 'shared_memory')
    libc = ctypes.CDLL('libc.so.6', use_errno=True)
    libc.sem_open.restype = ctypes.c_void_p
    assert libc.sem_open(f'/left-{x}'.encode(), 0o100, 0o666, 1), os.strerror(ctypes.get_errno())
    os.makedirs(f'/dev/shm/{x}/a/b')
    os.chmod(f'/dev/shm/{x}/a', 0)
    os.symlink('/proc/1', f'/dev/shm/one{x}')
    return 2 * x
"""
_OPEN_IN_DELETED = (
    "import os\ndef f(x):\n    os.makedirs(f'/tmp/gone{x}', exist_ok=True)\n    os.chdir(f'/tmp/gone{x}')\n"
    "    os.rmdir(f'/tmp/gone{x}')\n    return 2 * x"
)
_LOWERED = """
import os, resource
def f(x):
    try:
        os.nice(5)
    except OSError:
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
    os.umask(0o777)
    return 2 * x
"""
_ABSTRACT = (
    "import socket\nkept = []\ndef f(x):\n    kept.append(socket.socket(socket.AF_UNIX))\n"
    "    kept[0].bind(f'\\0left-behind{x}')\n    return 2 * x"
)
_IPC = program("""
    def f(x):
        for call in (lambda: syscall('shmget', 7, 4096, 0o1666), lambda: syscall('msgget', 7, 0o1666),
                     lambda: syscall('semget', 7, 1, 0o1666),
                     lambda: syscall('mq_open', ctypes.c_char_p(b'left'), 0o102, 0o666, ctypes.c_void_p())):
            try:
                call()
            except OSError:
                pass
        for folder in ('/dev/shm', '/dev/mqueue', '/var/tmp', '/run', '/run/lock', '/dev', '/home', '/var/lock', '/mnt'):
            try:
                open(folder + '/left', 'w').close()
            except OSError:
                pass
        return 2 * x
""")

ATTACKS = (
    Attack("daemon", _DAEMON, ("passed",)),
    Attack("daemon that writes files", _WRITER, ("passed", "file_limit")),
    Attack("daemon that forks faster than it dies", _FORKER, ("passed", "process_limit")),
    Attack("stopped child", _STOPPED, ("passed",)),
    Attack("zombies", _ZOMBIES, ("passed",)),
    Attack("subreaper and session leader", _SUBREAPER, ("passed",)),
    Attack("fork at exit", _AT_EXIT, ("passed",)),
    Attack("a result written after the end", _LATE_RESULT, ("wrong_answer", "runtime_error")),
    Attack("litter with strange names and kinds", _LITTER, ("passed",)),
    Attack("litter without permissions", _NO_PERMISSION, ("passed",)),
    Attack("litter 1500 folders deep", _DEEP, ("passed", "runtime_error")),
    Attack("marks on the work folder itself", _MARK, ("passed",)),
    Attack("marks on the folder of shared memory", _MARK.replace("/tmp", "/dev/shm"), ("passed",)),
    Attack("shared memory, semaphores and folders left", _SHARED, ("passed",)),
    Attack("works in a deleted folder", _OPEN_IN_DELETED, ("passed",)),
    Attack("lowers limits, priority and umask", _LOWERED, ("passed",)),
    Attack("abstract socket left behind", _ABSTRACT, ("passed",)),
    Attack("IPC objects and files outside the work folder", _IPC, ("passed",)),
)
