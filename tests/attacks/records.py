# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Results that are well formed for the runner and hostile to the process that reads them outside the sandbox."""

from tests.attacks.attack import Attack

_SEND = """
import json, os
def send(text):
    for fd in range(3, 64):
        try:
            left = b'!' + text.encode() + b'\\n'
            while left:
                left = left[os.write(fd, left):]
        except OSError:
            pass
def f(x):
    send(TEXT)
    os._exit(0)
"""
_BAD = ("runtime_error", "wrong_answer", "output_limit", "syntax_error")


def _record(name: str, text: str, kinds: tuple[str, ...] = _BAD) -> Attack:
    """`text` is an expression for a line of JSON."""
    return Attack(f"record: {name}", _SEND.replace("TEXT", text), kinds)


def _nested(depth: int) -> str:
    return f'\'{{"status": "returned", "value": \' + \'["list", [\' * {depth} + "1" + "]]" * {depth} + "}}"'


ATTACKS = (
    _record(
        "infinite line number", '\'{"status": "syntax_error", "type": "", "message": "", "line": 1e999, "source": ""}\''
    ),
    _record("exit code that is no number", '\'{"status": "exited", "code": NaN}\''),
    _record("infinite frame", '\'{"status": "raised", "type": "", "message": "", "frames": [[1e999, "f"]]}\''),
    _record("frames of the wrong kind", '\'{"status": "raised", "type": 1, "message": [], "frames": {"a": 1}}\''),
    _record("status of a limit with a value", '\'{"status": "memory_limit", "value": 6}\'', (*_BAD, "memory_limit")),
    _record("unknown status", '\'{"status": "passed", "value": 6}\''),
    _record("status of the lease", '\'{"status": "sandbox_violation"}\''),
    _record("killed by nobody", '\'{"status": "killed", "code": 9}\'', (*_BAD, "sandbox_violation")),
    _record("nested 90 deep", _nested(90)),
    _record("nested 300 deep", _nested(300)),
    _record("nested 460 deep", _nested(460)),
    _record("nested 5000 deep", _nested(5000)),
    _record("unhashable key", '\'{"status": "returned", "value": ["dict", [[["list", []], 1]]]}\''),
    _record("unhashable member", '\'{"status": "returned", "value": ["set", [["dict", []]]]}\''),
    _record("bare list", '\'{"status": "returned", "value": [[1], [2]]}\''),
    _record("mapping as a value", '\'{"status": "returned", "value": {"a": 1}}\''),
    _record("integer of 400 kB", '\'{"status": "returned", "value": ["int", "0x\' + \'f\' * 400000 + \'"]}\''),
    _record("long decimal integer", "'{\"status\": \"returned\", \"value\": ' + '9' * 100000 + '}'"),
    _record("float beyond its range", '\'{"status": "returned", "value": ["float", "0x1p99999"]}\''),
    _record(
        "colliding set",
        "json.dumps({'status': 'returned', 'value': ['set', [['int', hex(i * (2**61 - 1))] for i in range(1, 12000)]]})",
    ),
    _record("lone surrogates", '\'{"status": "returned", "value": "\\\\ud800\\\\u0000"}\''),
    _record("text with escapes", '\'{"status": "printed", "text": "\\\\u001b[2J\\\\r6\\\\n"}\''),
    _record(
        "message of 400 kB",
        '\'{"status": "raised", "type": "E", "message": "\' + \'/a\' * 200000 + \'", "frames": []}\'',
    ),
    _record(
        "type of 400 kB", '\'{"status": "raised", "type": "\' + \'E\' * 400000 + \'", "message": "", "frames": []}\''
    ),
    _record("the same key twice", '\'{"status": "returned", "status": "exited", "value": -1, "code": 0}\''),
    _record("not UTF-8", "'\\\\udcff\\\\x00' * 9"),
    _record("list instead of a record", "'[1, 2, 3]'"),
    _record("nested JSON of 100000 brackets", "'[' * 100000"),
)
