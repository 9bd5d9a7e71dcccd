"""What looks like a secret, so that no log, page or file shows it. Standard library only."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "<hidden>"
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "APIKEY", "KEY")
_IN_URI = re.compile(
    r"(?P<scheme>\bhttps?:/{1,2})[^/\s@]+@"
    r"|(?P<other>\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^/\s@:]*:(?!\d+/)[^\s@]+@"
)
"""scheme://user:password@host, also with a slash in the password; of http a token alone, too."""
_IN_QUERY = re.compile(r"(?P<key>[?&][\w.-]*(?:token|secret|password|credential|signature|key)[\w.-]*=)[^&\s#]+", re.I)
_ASSIGNED = re.compile(r"(?P<key>\b[\w.-]+)(?P<sign>\s*=\s*|[\"']\s*:\s*[\"']?)(?P<value>[^\s,;'\"}\]]+)")
"""name=value, and "name": "value" of JSON."""


def is_secret_name(name: str) -> bool:
    """Whether a variable or key of this name holds a secret: one of its words says so.

    Plural "tokens" are what models read, no secret: `max_response_tokens` is none, `HF_TOKEN` and `api_key` are.
    """
    words = [word.upper() for word in re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", name) if word]
    return any(word in _SECRET_WORDS for word in words)


def holds_credentials(text: str) -> bool:
    """Whether a URI in `text` carries a password or a signed query."""
    return bool(_IN_URI.search(text) or ("://" in text and _IN_QUERY.search(text)))


def hide_secrets(text: str) -> str:
    """`text` without the credentials of its URIs and without what is assigned to secret names."""
    text = _IN_URI.sub(lambda m: f"{m['scheme'] or m['other']}{HIDDEN}@", text)
    text = _IN_QUERY.sub(rf"\g<key>{HIDDEN}", text)
    return _ASSIGNED.sub(lambda m: m["key"] + m["sign"] + HIDDEN if is_secret_name(m["key"]) else m[0], text)


def secrets_in(data: Any, key: str = "") -> Iterator[str]:
    """The dotted keys of `data` (mappings, lists, plain values) whose values are secrets; null is none."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from secrets_in(value, f"{key}.{name}" if key else str(name))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from secrets_in(value, f"{key}.{index}")
    elif isinstance(data, str) and data and (is_secret_name(key.rpartition(".")[2]) or holds_credentials(data)):
        yield key
