# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Python's own corners: exceptions that bite, deep recursion, huge values, text that no terminal likes, crashes."""

from tests.attacks.attack import Attack

_RAISES = "class E(Exception):\n    def {name}(self):\n        {body}\ndef f(x):\n    raise E"
_HOSTILE = {
    "__str__ that raises": ("__str__", "raise ValueError"),
    "__str__ that exits": ("__str__", "raise SystemExit(0)"),
    "__str__ that ends the process": ("__str__", "import os; os._exit(0)"),
    "__str__ that recurses": ("__str__", "return str(self)"),
    "__str__ that is no string": ("__str__", "return 6"),
    "__str__ that is huge": ("__str__", "return 'x' * 10**7"),
    "__repr__ that raises": ("__repr__", "raise self"),
}
_LYING_CLASS = """
class Meta(type):
    @property
    def __name__(cls): raise SystemExit(0)
    def __subclasscheck__(cls, other): return True
    def __instancecheck__(cls, other): return True
class E(Exception, metaclass=Meta):
    __traceback__ = property(lambda self: 1 / 0)
    __cause__ = __context__ = property(lambda self: self)
    __class__ = MemoryError
def f(x):
    raise E
"""
_NO_END = "class E(Exception):\n    def __str__(self):\n        while True:\n            pass\ndef f(x):\n    raise E"
_CHAIN = "def f(x):\n    error = None\n    for _ in range(10**5):\n        new = ValueError('x')\n        new.__context__ = error\n        error = new\n    raise error"
_GROUP = "def f(x):\n    raise BaseExceptionGroup('x' * 999, [ExceptionGroup('y', [ValueError(str(i))]) for i in range(9999)])"
_DEEP = "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)"
_DEEP_C = "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    a = []\n    for _ in range(10**6):\n        a = [a]\n    return repr(a)"
_DEEP_VALUE = "def f(x):\n    a = []\n    for _ in range(10**5):\n        a = [a]\n    return a"
_CYCLE = "def f(x):\n    a = [x]\n    a.append(a)\n    return a"
_BYTECODE = "import types\ncode = (lambda: 0).__code__.replace(co_code=b'\\x64\\xff' * 40)\ndef f(x):\n    return types.FunctionType(code, {})()"
_SEGFAULT = "import ctypes\ndef f(x):\n    ctypes.string_at(0)"
_FREED = "import ctypes\ndef f(x):\n    for i in range(10**5):\n        ctypes.pythonapi.Py_DecRef(ctypes.py_object(None))\n    return 2 * x"
_SHUTDOWN = "import builtins\ndef f(x):\n    for name in dir(builtins):\n        if name != '__import__':\n            setattr(builtins, name, None)\n    return -1"
_FINALISER = """
import weakref, gc, os
class A: pass
a = A()
weakref.finalize(a, os._exit, 0)
gc.callbacks.append(lambda *_: os._exit(0))
def f(x):
    gc.collect()
    return -1
"""
_TEXT = "import sys\nsys.stdout.write('6\\x00\\x1b[31m\\ud800\\u202e' * 50)\nsys.stdout.buffer.write(b'\\xff\\xfe\\x80\\x00' * 50)"
_FAULT = "import faulthandler, os, signal\ndef f(x):\n    faulthandler.dump_traceback_later(0.05, exit=True)\n    while True: pass"
_NUMPY_FREE = "def f(x):\n    return memoryview(bytes(6))"
_META = "import sys\nclass Finder:\n    def find_spec(self, *a): raise SystemExit(0)\nsys.meta_path[:] = [Finder()]\nsys.path_hooks.clear()\nfor name in list(sys.modules):\n    if name not in ('sys', 'builtins'):\n        del sys.modules[name]\ndef f(x):\n    return -1"

ATTACKS = (
    *(
        Attack(name, _RAISES.format(name=method, body=body), ("runtime_error",), shows="E|exit code")
        for name, (method, body) in _HOSTILE.items()
    ),
    Attack("__str__ that does not end", _NO_END, ("timeout", "runtime_error")),
    Attack("an exception that lies about its class", _LYING_CLASS, ("runtime_error", "memory_limit")),
    Attack("a long chain of exceptions", _CHAIN, ("runtime_error",)),
    Attack("a group of exceptions", _GROUP, ("runtime_error",)),
    Attack("deep recursion", "def f(x):\n    return f(x)", ("runtime_error",), shows="RecursionError"),
    Attack("recursion without a limit", _DEEP, ("runtime_error", "memory_limit", "timeout")),
    Attack("recursion in C without a limit", _DEEP_C, ("runtime_error", "memory_limit", "wrong_answer", "timeout")),
    Attack("a deeply nested value", _DEEP_VALUE, ("wrong_answer", "runtime_error")),
    Attack("a value that holds itself", _CYCLE, ("wrong_answer", "runtime_error", "output_limit")),
    Attack("deeply nested source", "x = " + "(" * 500 + ")" * 500, ("syntax_error",)),
    Attack(
        "source of many terms",
        "x = " + "-" * 99999 + "1\ndef f(x):\n    return 2 * x",
        ("syntax_error", "memory_limit", "runtime_error", "passed"),
    ),
    Attack("source with NUL", "x = '\0'\ndef f(x):\n    return 2 * x", ("syntax_error",)),
    Attack("source with a lone surrogate", "x = '\ud800'\ndef f(x):\n    return 2 * x", ("syntax_error",)),
    Attack(
        "constants that the compiler folds",
        "x = ('a' * 4096, 1 << 4096)[0] * 4096 * 4096\ndef f(x):\n    return 2 * x",
        ("passed", "memory_limit"),
    ),
    Attack("a huge int", "def f(x):\n    return 1 << 10**6", ("output_limit", "wrong_answer")),
    Attack("a huge int in words", "def f(x):\n    return str(1 << 10**6)", ("output_limit", "timeout")),
    Attack("a huge repr", "def f(x):\n    raise ValueError(repr('x' * 10**6))", ("runtime_error",)),
    Attack("surrogates and NUL as a value", "def f(x):\n    return '\\ud800\\x00\\udfff' * 9", ("wrong_answer",)),
    Attack(
        "surrogates and NUL in a message",
        "def f(x):\n    raise ValueError('\\ud800\\x00\\x1b]0;x\\x07')",
        ("runtime_error",),
    ),
    Attack("surrogates, NUL and bytes in output", _TEXT, ("wrong_answer", "runtime_error"), script=True),
    Attack("bytecode of its own", _BYTECODE, ("runtime_error", "timeout")),
    Attack("a crash", _SEGFAULT, ("runtime_error",), shows="signal 11"),
    Attack("an object freed too often", _FREED, ("runtime_error", "passed")),
    Attack("builtins set to None", _SHUTDOWN, ("runtime_error", "wrong_answer")),
    Attack("finalisers and collector hooks", _FINALISER, ("runtime_error", "wrong_answer")),
    Attack("faulthandler that exits", _FAULT, ("runtime_error",)),
    Attack("import hooks and emptied modules", _META, ("runtime_error", "wrong_answer")),
    Attack("a memory view", _NUMPY_FREE, ("wrong_answer",)),
)
