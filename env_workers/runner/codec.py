"""Values as JSON: a closed set of exact built-in types, so that a program cannot return objects that fake equality.

None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict; no subclass of them, no pickle.
"""

from typing import Any

MAX_DEPTH = 64
MAX_COLLISIONS = 1000
_CONTAINERS = (list, tuple, set, frozenset, dict)


class UnsupportedError(Exception):
    """A value outside the closed set of types. The message says what it is, for example `a value of type object`."""


class TooLargeError(Exception):
    """A value whose encoding would pass its byte budget."""


def encode(value: Any, budget_bytes: int) -> Any:
    """Return JSON for None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict: exact types only.

    Raises UnsupportedError for any other type (subclasses too) and beyond MAX_DEPTH, TooLargeError beyond the budget.
    """
    left = [budget_bytes]

    def visit(value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _CONTAINERS and depth == MAX_DEPTH:
            raise UnsupportedError("a value that is nested too deeply")
        left[0] -= _own_size(value)
        if left[0] < 0:
            raise TooLargeError
        if kind is dict:
            return ["dict", [[visit(key, depth + 1), visit(item, depth + 1)] for key, item in value.items()]]
        if kind in _CONTAINERS:
            return [kind.__name__, [visit(item, depth + 1) for item in value]]
        return _encode_scalar(value)

    return visit(value, 0)


def size_of(value: Any) -> int:
    """Return the budget that `encode` needs for a value that it can encode."""
    size, level = 0, [value]
    while level:
        size += sum(map(_own_size, level))
        below: list[Any] = []
        for item in level:
            if type(item) in _CONTAINERS:
                below.extend(item)
                below.extend(item.values() if type(item) is dict else ())
        level = below
    return size


def _own_size(value: Any) -> int:
    kind = type(value)
    if kind in _CONTAINERS:
        return 16 * (1 + len(value))
    if kind is int:
        return 16 + int(value.bit_length() // 4)
    return 16 + (4 * len(value) if kind in (str, bytes) else 0)


def _encode_scalar(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if abs(value) < 2**63 else ["int", hex(value)]
    if kind is float:
        return ["float", value.hex()]
    if kind is complex:
        return ["complex", value.real.hex(), value.imag.hex()]
    if kind is bytes:
        return ["bytes", value.hex()]
    raise UnsupportedError(f"a value of type {kind.__name__[:60]}")


def decode(data: Any, depth: int = 0) -> Any:
    """Return the value that `encode` encoded. Raises ValueError for anything that `encode` does not make.

    It also raises for sets and dicts with more than MAX_COLLISIONS items of one hash, which take seconds to build.
    """
    if data is None or type(data) in (bool, int, str):
        return data
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    try:
        name, *rest = data
        if name == "int":
            return int(rest[0], 16)
        if name == "float":
            return float.fromhex(rest[0])
        if name == "complex":
            return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
        if name == "bytes":
            return bytes.fromhex(rest[0])
        if name == "dict":
            keys = _hashable([decode(key, depth + 1) for key, _ in rest[0]])
            return dict(zip(keys, [decode(item, depth + 1) for _, item in rest[0]], strict=True))
        items = [decode(item, depth + 1) for item in rest[0]]
        if name in ("list", "tuple"):
            return items if name == "list" else tuple(items)
        return {"set": set, "frozenset": frozenset}[name](_hashable(items))
    except (TypeError, KeyError, IndexError, OverflowError, ValueError, RecursionError):
        raise ValueError("not an encoded value") from None


def _hashable(items: list[Any]) -> list[Any]:
    if len(items) - len({hash(item) for item in items}) > MAX_COLLISIONS:
        raise ValueError("too many equal hashes")
    return items
