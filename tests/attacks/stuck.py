"""Programs that do not end, in every way that Python has to not end."""

from tests.attacks.attack import Attack

_IGNORE = """
import signal
for number in set(signal.Signals) - {9, 19}:
    signal.signal(number, signal.SIG_IGN)
def f(x):
    while True:
        pass
"""
_BLOCK_ALL = """
import signal, time
def f(x):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        time.sleep(1)
"""
_SWALLOW = "def f(x):\n    while True:\n        try:\n            f(x)\n        except BaseException:\n            pass"
_FIFO = "import os\ndef f(x):\n    os.mkfifo('/tmp/pipe')\n    open('/tmp/pipe').read()"
_LATE = "import time\nstart = time.time()\ndef f(x):\n    time.sleep(9 if x == 10 else 0)\n    return 2 * x"
_THREAD = (
    "import threading\ndef g():\n    while True:\n        pass\n"
    "def f(x):\n    threading.Thread(target=g).start()\n    return 2 * x"
)
_DEL = "class A:\n    def __del__(self):\n        while True:\n            pass\ndef f(x):\n    A()\n    return 2 * x"
_HANDLER = (
    "import signal, time\ndef again(*_):\n    while True:\n        time.sleep(1)\n"
    "signal.signal(signal.SIGXCPU, again)\nsignal.signal(signal.SIGALRM, again)\nsignal.alarm(1)\n"
    "def f(x):\n    time.sleep(30)"
)

ATTACKS = (
    Attack("endless loop", "def f(x):\n    while True:\n        pass", ("timeout",), shows=r"f\(3\)"),
    Attack("endless loop in the second test", _LATE, ("timeout",), shows=r"f\(10\)"),
    Attack("endless sleep", "import time\ndef f(x):\n    time.sleep(10**6)", ("timeout",)),
    Attack("endless import", "while True:\n    pass", ("timeout",)),
    Attack("endless C call", "def f(x):\n    return 7 ** (7 ** 9) % 10", ("timeout",)),
    Attack("endless regular expression", "import re\ndef f(x):\n    re.match('(a+)+$', 'a' * 64 + 'b')", ("timeout",)),
    Attack("ignores every signal", _IGNORE, ("timeout",)),
    Attack("blocks every signal", _BLOCK_ALL, ("timeout",)),
    Attack("signal handlers that go on", _HANDLER, ("timeout",)),
    Attack("swallows every exception", _SWALLOW, ("timeout", "runtime_error")),
    Attack("stops itself", "import os\ndef f(x):\n    os.kill(os.getpid(), 19)", ("timeout",)),
    Attack("waits for itself", _FIFO, ("timeout",)),
    Attack("a thread that goes on", _THREAD, ("passed", "timeout")),
    Attack("an endless finaliser", _DEL, ("timeout",)),
    Attack("reads for ever", "import sys\nwhile True:\n    sys.stdin.read()", ("timeout",), script=True),
)
