# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Against the judge of assert-style tests, which runs in a sandbox of its own and talks to the program through proxies.

The asserts are `f(x) == 2 * x` for 3 and 10, and one that uses the value as a key. The program answers messages; what
it could find of the asserts would be in its own process.
"""

from dataclasses import replace

from tests.attacks.attack import Attack

ASSERTS = ("assert f(3) == 6", "assert f(10) == 20", "assert {2: True}[f(1)]")

_FIND = """
import gc, sys
def f(x):
    found = [str(o)[:40] for o in gc.get_objects() if type(o) is dict and ('groups' in o or 'asserts' in o and x not in o)
             and '__name__' not in o]
    frame = sys._getframe(1)
    while frame:
        found += [str(v)[:40] for v in frame.f_locals.values() if isinstance(v, str) and 'assert f(' in v and 'def f' not in v]
        frame = frame.f_back
    return found or 2 * x
"""
_EQUAL = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    __hash__ = lambda self: 2
def f(x):
    return Yes()
"""
_SUBCLASS = """
class Yes(int):
    def __eq__(self, other): return True
    def __hash__(self): return hash(2)
def f(x):
    return Yes(7)
"""
_COUNTER = """
import collections
class Yes(collections.Counter):
    def __eq__(self, other): return True
    def __iter__(self): return iter(())
    def items(self): return [(2, 2)]
    __hash__ = lambda self: hash(2)
def f(x):
    return Yes()
"""
_PATCHED = """
import builtins, sys, unittest
unittest.TestCase.assertEqual = lambda *a: None
builtins.AssertionError = type('AssertionError', (Exception,), {'__init__': lambda self, *a: sys.exit(0)})
builtins.__build_class__ = builtins.compile = builtins.exec = lambda *a, **k: None
def f(x):
    return -1
"""
_RAISES = "class E(BaseException):\n    pass\ndef f(x):\n    raise {error}"
_SAYS = """
import os
def say(line):
    for fd in range(3, 64):
        try:
            os.write(fd, line + b'\\n')
        except OSError:
            pass
def f(x):
    say(LINE)
    os._exit(0)
"""
_TWICE = """
import os
def f(x):
    for fd in range(3, 64):
        try:
            os.write(fd, b'?{"status":"returned","value":6}\\n?{"status":"returned","value":20}\\n?{"status":"returned","value":2}\\n')
        except OSError:
            pass
    return -1
"""
_LOADING = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b'!{"outcome":{"status":"passed"}}\\n' * 3 + b'!{"finished":true}\\n')
    except OSError:
        pass
def f(x):
    return -1
"""
_HUGE = "def f(x):\n    return 10 ** 5000"
_STATE = "calls = []\ndef f(x):\n    calls.append(x)\n    return 2 * x if len(calls) == 1 else -1"
_CHILD = """
import os, time
def f(x):
    if os.fork() == 0:
        while True:
            time.sleep(0.001)
            for fd in range(3, 64):
                try:
                    os.write(fd, b'?{"status":"returned","value":%d}\\n' % (2 * x))
                except OSError:
                    pass
    time.sleep(0.05)
    return -1
"""
_BAD = ("wrong_answer", "runtime_error")


def _says(name: str, line: str, kinds: tuple[str, ...] = _BAD) -> Attack:
    return Attack(f"asserts: {name}", _SAYS.replace("LINE", line), kinds)


def _nested(depth: int) -> str:
    return f"""b'?{{"status":"returned","value":' + b'["list",[' * {depth} + b'1' + b']]' * {depth} + b'}}'"""


_ATTACKS = (
    Attack("asserts: looks for them", _FIND, ("passed",)),
    Attack("asserts: an object equal to everything", _EQUAL, ("wrong_answer",)),
    Attack("asserts: an int equal to everything", _SUBCLASS, ("wrong_answer",)),
    Attack("asserts: a Counter equal to everything", _COUNTER, _BAD),
    Attack("asserts: patches assert and unittest", _PATCHED, _BAD),
    *(
        Attack(f"asserts: raises {error}", _RAISES.format(error=error), ("runtime_error",))
        for error in ("AssertionError", "SystemExit(0)", "StopIteration", "GeneratorExit", "KeyboardInterrupt", "E")
    ),
    _says("forged verdict", """b'?{"outcome":{"status":"passed"}}'"""),
    _says("forged end", """b'!{"finished":true}'"""),
    _says("forged status", """b'?{"status":"passed"}'"""),
    _says("question to the host", """b'?{"ask":{"function":"f","args":[],"kwargs":{}}}'"""),
    _says("true without a value", """b'?{"status":"returned_other","type":"x","truth":true}'"""),
    _says("a list for an answer", "b'?[1, 2]'"),
    _says("not JSON", "b'?nothing'"),
    _says("no mark", """b'{"status":"returned","value":6}'"""),
    _says("nested 90 deep", _nested(90)),
    _says("nested 450 deep", _nested(450)),
    _says("nested 50000 deep", _nested(50000)),
    _says("infinite number", """b'?{"status":"raised","type":"E","message":"","frames":[[1e999,"f"]]}'"""),
    Attack("asserts: answers ahead", _TWICE, _BAD),
    Attack("asserts: results while it loads", _LOADING, _BAD),
    Attack("asserts: a child answers", _CHILD, (*_BAD, "timeout", "passed")),
    Attack("asserts: an int too long for words", _HUGE, ("wrong_answer",)),
    Attack("asserts: right once", _STATE, ("wrong_answer",)),
    Attack(
        "asserts: kills its process", "import os\ndef f(x):\n    os.kill(os.getpid(), 9)", ("sandbox_violation", *_BAD)
    ),
    Attack("asserts: ends its process", "import os\ndef f(x):\n    os._exit(0)", _BAD),
    Attack("asserts: ends while it loads", "import os\nos._exit(0)", _BAD),
    Attack("asserts: does not end", "def f(x):\n    while True:\n        pass", ("timeout",)),
    Attack("asserts: does not load", "while True:\n    pass", ("timeout",)),
    Attack("asserts: memory", "def f(x):\n    return len(bytearray(10**9))", ("memory_limit",)),
    Attack("asserts: huge value", "def f(x):\n    return [x] * 10**6", ("output_limit",)),
    Attack("asserts: fork bomb", "import os\ndef f(x):\n    while True:\n        os.fork()", ("process_limit",)),
    Attack("asserts: output flood", "def f(x):\n    while True:\n        print('x' * 999)", ("output_limit",)),
)
ATTACKS = tuple(replace(attack, asserts=True) for attack in _ATTACKS)
