"""Let the ranks write and read checkpoints and models in an object store, through a local copy on each node.

A location that is a path is used as it is. All ranks enter and leave together; what goes wrong on one is a
`CheckpointError` on all, one line that names the URI.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from learner.checkpoint import agree, written_here
from sdpo.errors import SdpoError
from sdpo.run_layout import MODEL, MODEL_MARK
from sdpo.show import show_error
from sdpo.storage import Store, is_uri
from sdpo.storage_cache import cache_folder, fetched, scratch, short_id

SHARE_FOR_TRANSFERS = 0.9
"""The share of a checkpoint's deadline for transfers, so that an error names the store before the deadline passes."""


@contextmanager
def saving(location: str, timeout_s: float) -> Iterator[str]:
    """Give a path to write the checkpoint into; after the block this rank's files are at `location`."""
    if not is_uri(location):
        yield location
        return
    deadline_s = time.monotonic() + SHARE_FOR_TRANSFERS * timeout_s
    local = cache_folder("scratch", short_id(location))  # one for each node: its ranks write side by side
    try:
        yield str(local)
        failure = ""
        try:
            files = {file.name: file for file in written_here(local)}
            Store(location).upload(files, deadline_s - time.monotonic())
        except (SdpoError, OSError) as error:
            failure = f"learner rank {dist.get_rank()} could not write it: {show_error(error)}"
        agree(location, failure)
    finally:
        shutil.rmtree(local, ignore_errors=True)


@contextmanager
def loading(location: str, timeout_s: float) -> Iterator[str]:
    """Give a path at which the checkpoint can be read during the block."""
    if not is_uri(location):
        yield location
        return
    failure, local = "", Path()
    try:
        local = fetched(location, SHARE_FOR_TRANSFERS * timeout_s)
    except (SdpoError, OSError) as error:
        failure = f"learner rank {dist.get_rank()} could not read it: {show_error(error)}"
    agree(location, failure)
    yield str(local)
    dist.barrier()
    shutil.rmtree(local.parent, ignore_errors=True)


@contextmanager
def exporting(location: str, timeout_s: float) -> Iterator[str]:
    """Give a path to write the model into; after the block it is at `location`, complete. Rank 0 uploads it.

    Raises `StorageError` or `TransferError` on rank 0.
    """
    if not is_uri(location):
        yield location
        return
    deadline_s = time.monotonic() + SHARE_FOR_TRANSFERS * timeout_s
    with scratch() as beside:
        local = beside / MODEL
        yield str(local)
        if dist.get_rank() == 0:
            put_model(local, location, deadline_s - time.monotonic())


def put_model(local: Path, uri: str, timeout_s: float) -> None:
    """Replace the model at `uri`; a reader meanwhile finds no model. Raises `StorageError` or `TransferError`."""
    deadline_s, store = time.monotonic() + timeout_s, Store(uri)
    files = {file.relative_to(local).as_posix(): file for file in local.rglob("*") if file.is_file()}
    mark = {MODEL_MARK: files.pop(MODEL_MARK)}
    store.delete([MODEL_MARK, *(name for name in store.listing() if name not in files)])
    store.upload(files, deadline_s - time.monotonic())
    store.upload(mark, deadline_s - time.monotonic())
