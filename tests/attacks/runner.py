# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Against PID 1, which serves the executions: signals, its limits and priority, its channel, its patience."""

from tests.attacks.attack import Attack, program

_SIGNALS = """
import os
def f(x):
    for number in range(1, 65):
        for pid in (1, os.getppid()):
            try:
                os.kill(pid, number)
            except OSError:
                pass
    return 2 * x
"""
_EVERYBODY = "import os, signal\ndef f(x):\n    signal.signal(15, signal.SIG_IGN)\n    try:\n        os.killpg(0, 15)\n        os.kill(-1, 15)\n    except ProcessLookupError:\n        pass\n    return 2 * x"
_LIMITS = program("""
    import resource
    def f(x):
        for which in range(16):
            try:
                resource.prlimit(1, which, (0, 0))
            except OSError:
                pass
        return 2 * x
""")
_PRIORITY = program("""
    def f(x):
        for action in (lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.setpriority(os.PRIO_PGRP, 1, 19),
                       lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19), lambda: os.sched_setaffinity(1, {0}),
                       lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
                       lambda: syscall('ioprio_set', 1, 1, 3 << 13)):
            try:
                action()
            except OSError:
                pass
        return 2 * x
""")
_FRAMES = """
import json, os, struct
def f(x):
    for answer in ({'outcomes': [{'status': 'returned', 'value': v} for v in (6, 20)], 'dirty': None}, {'ready': True}):
        body = json.dumps(answer).encode()
        for head in (struct.pack('>I', len(body)), struct.pack('>BxxxI', 1, len(body)), struct.pack('<Q', len(body)), b''):
            for fd in range(64):
                try:
                    os.write(fd, head + body)
                except OSError:
                    pass
    return -1
"""
_PRINTED_FRAMES = """
import json, struct, sys
answer = json.dumps({'outcomes': [{'status': 'printed', 'text': '6'}, {'status': 'printed', 'text': '20'}]}).encode()
for stream in (sys.stdout, sys.stderr):
    stream.buffer.write(b'\\x01\\0\\0\\0' + struct.pack('>I', len(answer)) + answer + b'\\n' + answer + b'\\n')
    stream.flush()
"""
_READ_DESCRIPTORS = """
import os
def f(x):
    found = []
    for name in os.listdir('/proc/self/fd'):
        try:
            target = os.readlink(f'/proc/self/fd/{name}')
            os.set_blocking(int(name), False)
            data = os.read(int(name), 1000)
        except OSError:
            continue
        if data:
            found.append((target[:30], data[:30]))
    return found or 2 * x
"""
_REOPEN = """
import os
def f(x):
    found = []
    for fd in os.listdir('/proc/self/fd'):
        for flags in (os.O_RDONLY, os.O_RDWR):
            try:
                target = os.readlink(f'/proc/self/fd/{fd}')
                again = os.open(f'/proc/self/fd/{fd}', flags | os.O_NONBLOCK)
                found += [target] * (os.read(again, 99) != b'' and int(fd) > 2)
            except OSError:
                pass
    return found or 2 * x
"""
_CLOSED = "import os\ndef f(x):\n    os.closerange(0, 99)\n    return 2 * x"
_CLOSED_GOES_ON = "import os\ndef f(x):\n    os.closerange(0, 99)\n    while True:\n        pass"
_REPLACED = """
import os
def f(x):
    null = os.open('/dev/null', os.O_RDWR)
    for fd in range(64):
        if fd != null:
            try:
                os.dup2(null, fd)
            except OSError:
                pass
    return 2 * x
"""
_FULL_PIPE = """
import os, threading, time
def f(x):
    for fd in range(3, 64):
        try:
            os.set_blocking(fd, False)
        except OSError:
            continue
        try:
            while True:
                os.write(fd, b' ')
        except OSError:
            pass
    return 2 * x
"""
_HALF_LINE = """
import os, time
def f(x):
    for fd in range(3, 64):
        try:
            os.write(fd, b'!{"status": "retu')
        except OSError:
            pass
    os._exit(0)
"""
_SENT_DESCRIPTORS = """
import array, os, socket
def f(x):
    left = open('/tmp/held', 'w+b')
    left.write(bytes(8 << 20))
    os.unlink('/tmp/held')
    pair = socket.socketpair()
    for fd in range(3, 64):
        try:
            link = socket.socket(fileno=os.dup(fd))
            link.setblocking(False)
            for held in (left, pair[0], pair[1], link):
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [held.fileno()] * 50))]
                link.sendmsg([b' '], rights)
                pair[0].sendmsg([b' '], rights)
        except OSError:
            pass
    return 2 * x
"""
_URGENT = """
import os, socket, time
def f(x):
    for fd in range(3, 64):
        try:
            link = socket.socket(fileno=os.dup(fd))
            link.send(b'!', socket.MSG_OOB)
        except OSError:
            pass
    time.sleep(0.05)
    return 2 * x
"""
_HALF_CLOSED = """
import os, socket, time
def f(x):
    for fd in range(3, 64):
        try:
            socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR if x == 10 else socket.SHUT_RD)
        except OSError:
            pass
    return 2 * x
"""
_ASKS = """
import os
def f(x):
    for fd in range(3, 64):
        for line in (b'?{"status": "returned", "value": 0}\\n', b'?{"ask": {}}\\n', b'!{"outcome": {"status": "passed"}}\\n',
                     b'!{"finished": true}\\n', b'\\n', b'!\\n', b'\\xff\\n'):
            try:
                os.write(fd, line)
            except OSError:
                pass
    return -1
"""
_KILLED = "import os\ndef f(x):\n    os.kill(os.getpid(), 9)"
_KILLED_AT_IMPORT = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
_LATE_KILL = "import os\ndef f(x):\n    if x == 10:\n        os.kill(os.getpid(), 9)\n    return 2 * x"
_CHILD_KILLS = "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.kill(os.getppid(), 9)\n        os._exit(0)\n    time.sleep(9)"

ATTACKS = (
    Attack("every signal to the runner", _SIGNALS, ("passed", "runtime_error")),
    Attack("signals to everybody", _EVERYBODY, ("passed",)),
    Attack("limits of the runner", _LIMITS, ("passed",)),
    Attack("priority and processors of the runner", _PRIORITY, ("passed",)),
    Attack("the protocol's frames on every descriptor", _FRAMES, ("wrong_answer", "runtime_error", "output_limit")),
    Attack("prints the protocol's frames", _PRINTED_FRAMES, ("wrong_answer",), script=True),
    Attack("reads every inherited descriptor", _READ_DESCRIPTORS, ("passed", "runtime_error")),
    Attack("opens inherited descriptors anew", _REOPEN, ("passed",)),
    Attack("closes every descriptor", _CLOSED, ("runtime_error",)),
    Attack("closes every descriptor and goes on", _CLOSED_GOES_ON, ("runtime_error", "timeout")),
    Attack("puts other files on every descriptor", _REPLACED, ("runtime_error",)),
    Attack("sends descriptors to the runner", _SENT_DESCRIPTORS, ("passed", "runtime_error", "output_limit")),
    Attack("urgent data to the runner", _URGENT, ("passed", "runtime_error")),
    Attack("half-closes its link to the runner", _HALF_CLOSED, ("passed", "runtime_error")),
    Attack("speaks out of turn", _ASKS, ("wrong_answer", "runtime_error")),
    Attack("fills the result pipe", _FULL_PIPE, ("runtime_error", "output_limit", "timeout")),
    Attack("half a result, then the end", _HALF_LINE, ("runtime_error",)),
    Attack("kills itself", _KILLED, ("sandbox_violation", "runtime_error")),
    Attack("kills itself while it loads", _KILLED_AT_IMPORT, ("sandbox_violation", "runtime_error")),
    Attack("kills itself in the second test", _LATE_KILL, ("sandbox_violation", "runtime_error")),
    Attack("a child kills its parent", _CHILD_KILLS, ("sandbox_violation", "runtime_error")),
)
