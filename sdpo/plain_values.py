"""Values of columnar data (Parquet, Hugging Face data sets) as JSON has them."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from sdpo.errors import TaskFileError
from sdpo.show import show


def plain_record(where: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with values that JSON can hold. `where` starts error messages.

    Columns give every object the keys of all others, as nulls: those are left out at every depth below the row, where
    lists keep their nulls. Dates become ISO text, durations seconds, decimals numbers, bytes text, maps objects. Raises
    `TaskFileError` for what JSON has nothing for.
    """
    return {str(key): _plain(where, str(key), value) for key, value in record.items()}


def _plain(where: str, key: str, value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        pairs = {str(name): below for name, below in value.items() if below is not None}
        return {name: _plain(where, f"{key}.{name}", below) for name, below in pairs.items()}
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):  # how Arrow gives a map
            return _plain(where, key, dict(value))
        return [_plain(where, f"{key}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(where, key, value.tolist())
    return _scalar(where, key, value)


def _scalar(where: str, key: str, value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise TaskFileError(f"{where}: {key}={show(bytes(value))}: allowed: UTF-8 text") from None
    kind = type(value).__name__
    raise TaskFileError(f"{where}: {key} is of type {kind}: allowed: text, numbers, dates, lists and objects")
