"""What Weights & Biases wrote offline, read back from its files."""

import json
import struct
from pathlib import Path


def wandb_records(file: Path) -> list[bytes]:
    """The records of a .wandb file: a LevelDB log behind a header of 7 bytes."""
    data, at, records, parts = file.read_bytes(), 7, list[bytes](), list[bytes]()
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(b"".join(parts))
            parts.clear()
    return records


def wandb_rows(run_dir: Path) -> list[dict[str, float]]:
    """Every row of every offline run below the run directory, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for file in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        for record in map(Record.FromString, wandb_records(file)):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows
