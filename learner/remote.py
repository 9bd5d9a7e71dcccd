"""Checkpoints and models in an object store, as the ranks write and read them: each node has a local copy meanwhile.

A folder that is a path is used as it is. All ranks enter and leave together; what goes wrong on one is a
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
from sdpo.show import show_error
from sdpo.storage import Store, is_uri
from sdpo.storage_cache import cache_folder, fetched, scratch, short_id

SHARE_FOR_TRANSFERS = 0.9
"""Of a checkpoint's deadline: the store is named before the deadline names the actor only."""
MARK = "config.json"
"""Of a model folder: goes away first and comes last, so that half a model is none."""


@contextmanager
def saving(folder: str, timeout_s: float) -> Iterator[str]:
    """Inside, write the checkpoint into the path that is given; afterwards this rank's files are in `folder`."""
    if not is_uri(folder):
        yield folder
        return
    deadline_s = time.monotonic() + SHARE_FOR_TRANSFERS * timeout_s
    local = cache_folder("scratch", short_id(folder))  # one of a node: its ranks write side by side
    try:
        yield str(local)
        failure = ""
        try:
            files = {file.name: file for file in written_here(local)}
            Store(folder).upload(files, deadline_s - time.monotonic())
        except (SdpoError, OSError) as error:
            failure = f"learner rank {dist.get_rank()} could not write it: {show_error(error)}"
        agree(folder, failure)
    finally:
        shutil.rmtree(local, ignore_errors=True)


@contextmanager
def loading(folder: str, timeout_s: float) -> Iterator[str]:
    """Inside, the checkpoint lies at the path that is given."""
    if not is_uri(folder):
        yield folder
        return
    failure, local = "", Path()
    try:
        local = fetched(folder, SHARE_FOR_TRANSFERS * timeout_s)
    except (SdpoError, OSError) as error:
        failure = f"learner rank {dist.get_rank()} could not read it: {show_error(error)}"
    agree(folder, failure)
    yield str(local)
    dist.barrier()
    shutil.rmtree(local.parent, ignore_errors=True)


@contextmanager
def exporting(folder: str, timeout_s: float) -> Iterator[str]:
    """Inside, write the model into the path that is given; afterwards it is in `folder`, whole. Rank 0 brings it there.

    Raises `StorageError` or `TransferError` on rank 0.
    """
    if not is_uri(folder):
        yield folder
        return
    deadline_s = time.monotonic() + SHARE_FOR_TRANSFERS * timeout_s
    with scratch() as beside:
        local = beside / "model"
        yield str(local)
        if dist.get_rank() == 0:
            put_model(local, folder, deadline_s - time.monotonic())


def put_model(local: Path, uri: str, timeout_s: float) -> None:
    """In place of what was there; a reader meanwhile finds no model. Raises `StorageError` or `TransferError`."""
    deadline_s, store = time.monotonic() + timeout_s, Store(uri)
    files = {file.relative_to(local).as_posix(): file for file in local.rglob("*") if file.is_file()}
    mark = {MARK: files.pop(MARK)}
    store.delete([MARK, *(name for name in store.listing() if name not in files)])
    store.upload(files, deadline_s - time.monotonic())
    store.upload(mark, deadline_s - time.monotonic())
