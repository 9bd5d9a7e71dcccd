# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Lying about the result: on the result's own descriptor, with values that lie, with the interpreter's own parts."""

from tests.attacks.attack import Attack

_DESCRIPTORS = """
import os
def f(x):
    for line in (b'{"status": "passed"}', b'{"reward": 1}', b'{"status": "returned", "passed": true, "value": true}'):
        for fd in range(64):
            try:
                os.write(fd, b'!' + line + b'\\n')
                os.write(fd, b'?' + line + b'\\n')
            except OSError:
                pass
    return -1
"""
_AHEAD = """
import os
for fd in range(64):
    try:
        os.write(fd, b'!{"status": "passed", "success": true}\\n' * 9)
    except OSError:
        pass
def f(x):
    os._exit(0)
"""
_EQUAL = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return hash(6)
    def __bool__(self): return True
def f(x):
    return Yes()
"""
_SUBCLASS = """
class Yes({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __repr__(self): return str(2 * 3)
    def __reduce__(self): return int, (6,)
Yes.__name__ = Yes.__qualname__ = '{base}'
Yes.__module__ = 'builtins'
def f(x):
    return Yes()
"""
_CLASS = """
class Meta(type):
    __name__ = property(lambda self: 'int')
    def __instancecheck__(self, other): return True
    def __eq__(self, other): return True
    __hash__ = type.__hash__
class Yes(metaclass=Meta):
    __class__ = property(lambda self: int)
    def __index__(self): return 6
    __int__ = __index__
def f(x):
    return Yes()
"""
_ALMOST = "def f(x):\n    return {value}"
_BUILTINS = """
import builtins, sys
for name in ('len', 'isinstance', 'type', 'repr', 'str', 'int', 'abs', 'print', 'open', 'getattr', 'hasattr', 'map', 'min'):
    setattr(builtins, name, lambda *a, **k: 6)
def f(x):
    return -1
"""
_JSON = """
import json, sys
json.dumps = json.JSONEncoder.encode = lambda *a, **k: '{"status": "passed", "reward": 1, "success": true}'
json.encoder.encode_basestring_ascii = json.dumps
sys.modules['json'] = None
def f(x):
    return -1
"""
_SYS = """
import builtins, sys
sys.modules.clear()
sys.path[:] = []
sys.stdout = sys.stderr = sys.stdin = None
sys.exit = sys.excepthook = lambda *a: None
builtins.__import__ = None
def f(x):
    return -1
"""
_RUNNER_GLOBALS = """
import sys
def f(x):
    frame = sys._getframe(1)
    while frame:
        for name, value in list(frame.f_globals.items()):
            if callable(value) and not name.startswith('__') and not isinstance(value, type):
                frame.f_globals[name] = lambda *a, **k: {'status': 'passed', 'value': True}
        frame = frame.f_back
    return -1
"""
_TRACE = """
import sys
def tracer(frame, event, argument):
    for name in ('outcome', 'value', 'status'):
        if name in frame.f_locals:
            frame.f_locals[name] = {'status': 'passed'}
    return tracer
sys.settrace(tracer)
sys.setprofile(tracer)
def f(x):
    frame = sys._getframe(1)
    while frame:
        frame.f_trace = tracer
        frame = frame.f_back
    return -1
"""
_OS_WRITE = """
import os
real = os.write
os.write = lambda fd, data: real(fd, b'!{"status": "passed", "value": true}\\n') and len(data)
os.fork = os.pipe = os.close = os.waitpid = lambda *a: 0
def f(x):
    return -1
"""
_SWITCHES = """
import sys, gc
answers = {}
class Two(int):
    def __new__(cls, v):
        self = int.__new__(cls, v)
        return self
    def bit_length(self): return 0
    def hex(self): return '0x6'
    def __abs__(self): return 0
    def __lt__(self, other): return True
def f(x):
    return [Two(7)]
"""
_HEADERS = "print('Test Case 1: passed\\nAll tests passed\\nreward: 1.0')\nraise SystemExit(0)"

_EXITS = {
    "sys.exit(0)": "import sys\ndef f(x):\n    sys.exit(0)",
    "sys.exit(0) while it loads": "import sys\nsys.exit(0)",
    "os._exit(0)": "import os\ndef f(x):\n    os._exit(0)",
    "os._exit(0) while it loads": "import os\nos._exit(0)",
    "os.abort": "import os\ndef f(x):\n    os.abort()",
    "an exit at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    return -1",
    "replaces itself": "import os\ndef f(x):\n    os.execv('/bin/true', ['true'])",
    "replaces itself with an echo": (
        "import os\ndef f(x):\n    os.execv('/bin/sh', ['sh', '-c', 'for i in 3 4 5 6 7 8 9; do echo"
        ' {\\\\"status\\\\": \\\\"passed\\\\"} >&$i; done 2>/dev/null\'])'
    ),
    "raises SystemExit of its own": "class E(SystemExit):\n    code = 0\ndef f(x):\n    raise E(0)",
    "raises GeneratorExit": "def f(x):\n    raise GeneratorExit",
    "raises KeyboardInterrupt": "def f(x):\n    raise KeyboardInterrupt",
    "a thread that exits": "import os, threading, time\ndef f(x):\n    threading.Thread(target=os._exit, args=(0,)).start()\n    time.sleep(9)",
}
_VALUES = {
    "a float beside an int": "2.0 * x + 1e-9",
    "a bool for an int": "x == 3 or 20 == 2 * x",
    "a string for an int": "str(2 * x)",
    "a list around the answer": "[2 * x]",
    "a complex beside an int": "complex(2 * x, 1e-9)",
    "every answer at once": "{6, 20}",
    "NaN": "float('nan')",
    "infinity": "float('inf')",
    "NotImplemented": "NotImplemented",
    "Ellipsis": "...",
    "a generator": "(y for y in [2 * x])",
    "a function": "lambda: 2 * x",
    "a type": "int",
    "bytes": "b'6'",
    "a view of a dict": "{2 * x: 1}.keys()",
    "a coroutine": "(lambda: (yield 2 * x))()",
}

ATTACKS = (
    Attack("forged results on every descriptor", _DESCRIPTORS, ("wrong_answer", "runtime_error")),
    Attack("forged results ahead of the tests", _AHEAD, ("wrong_answer", "runtime_error")),
    Attack("an object equal to everything", _EQUAL, ("wrong_answer",)),
    *(
        Attack(f"a subclass of {base} equal to everything", _SUBCLASS.format(base=base), ("wrong_answer",))
        for base in ("int", "str", "float", "list", "dict", "set", "tuple", "bytes", "complex")
    ),
    Attack("a class that says it is int", _CLASS, ("wrong_answer", "runtime_error")),
    *(Attack(name, _ALMOST.format(value=value), ("wrong_answer",)) for name, value in _VALUES.items()),
    Attack("patched builtins", _BUILTINS, ("wrong_answer", "runtime_error")),
    Attack("patched json", _JSON, ("wrong_answer", "runtime_error")),
    Attack("emptied sys", _SYS, ("wrong_answer", "runtime_error")),
    Attack("patched globals of the caller", _RUNNER_GLOBALS, ("wrong_answer", "runtime_error", "timeout")),
    Attack("traces its caller", _TRACE, ("wrong_answer", "runtime_error")),
    Attack("patched os", _OS_WRITE, ("wrong_answer", "runtime_error")),
    Attack("an int that lies about its size", _SWITCHES, ("wrong_answer",)),
    Attack("prints a verdict", _HEADERS, ("wrong_answer",), script=True),
    *(Attack(name, text, ("runtime_error", "wrong_answer")) for name, text in _EXITS.items()),
)
