"""`sdpo.storage.Store`: one contract for a folder on a disk and for one in an object store (fsspec's, in memory)."""

import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import sdpo.storage
from sdpo.errors import StorageError, TransferError
from sdpo.storage import Store, base_name, can_be_folder, is_uri, join_location, resolved
from sdpo.storage_cache import borrowed, cache_folder, fetched, local_disk, output_folder


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty folder that does not exist yet."""
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "cache"))
    yield Store(tmp_path / "disk/run" if request.param == "disk" else f"memory://{tmp_path.name}/run")
    import_module("fsspec").filesystem("memory").store.clear()


def test_what_is_written_is_listed_read_and_deleted(store: Store) -> None:
    assert (store.names("a"), store.listing(), store.read("a/x"), store.exists("a/x")) == ([], {}, None, False)
    store.write("a/x", b"one")
    store.commit("a/b/y", b"four")
    store.write("z", b"")
    assert store.names("a") == ["b", "x"]
    assert {name: entry.size for name, entry in store.listing().items()} == {"a/x": 3, "a/b/y": 4, "z": 0}
    assert {name: entry.size for name, entry in store.listing("a/b").items()} == {"a/b/y": 4}
    store.write("a/x", b"two")
    assert (store.read("a/x"), store.read("a/b/y"), store.exists("a/x")) == (b"two", b"four", True)
    store.delete(["a/x", "a/never"])
    assert sorted(store.listing()) == ["a/b/y", "z"]
    store.delete_folder("a")
    store.delete_folder("never")
    assert sorted(store.listing()) == ["z"]


def test_a_file_is_created_once_whoever_tries(store: Store) -> None:
    created: list[bool] = []
    threads = [threading.Thread(target=lambda: created.append(store.create("lock/1", b"x"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(created) == [False, False, False, True]


def test_files_travel_both_ways_and_a_missing_one_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("content")
    store.upload({"there/a": tmp_path / "here"})
    store.download({"there/a": tmp_path / "back/again"})
    assert (tmp_path / "back/again").read_text() == "content"
    with pytest.raises(StorageError, match=rf"^{store.location}/there/b: cannot be read: "):
        store.download({"there/b": tmp_path / "back/b"})


def test_a_copy_is_the_path_itself_or_lies_in_the_cache(store: Store) -> None:
    store.write("model/config.json", b"{}")
    location = join_location(store.location, "model")
    copy = fetched(location)
    assert (copy / "config.json").read_text() == "{}"
    assert (copy == Path(location)) is (store.path is not None)
    with borrowed(location) as path:
        assert (path / "config.json").exists()
    assert path.exists() is (store.path is not None)


def test_commit_on_a_disk_leaves_the_old_content_when_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.commit("state.json", b"old")
    monkeypatch.setattr(sdpo.storage, "PAUSES_S", ())

    def power_cut(*_: Any) -> None:
        raise OSError("cut")

    monkeypatch.setattr("os.replace", power_cut)
    with pytest.raises(TransferError, match="was not written: cut"):
        store.commit("state.json", b"new")
    monkeypatch.undo()
    assert store.read("state.json") == b"old"


def test_a_request_is_tried_again_until_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = Store(tmp_path), list[int]()
    monkeypatch.setattr(sdpo.storage, "PAUSES_S", (0.0, 0.0))

    def failing(*_: Any) -> bytes:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("no route")
        return b"here"

    monkeypatch.setattr(type(store._fs), "cat_file", failing)
    assert store.read("x") == b"here"
    monkeypatch.setattr(type(store._fs), "pipe_file", lambda *_: time.sleep(5))
    with pytest.raises(TransferError, match=r"/x: was not written: no answer within 0 s"):
        store.write("x", b"", timeout_s=0.05)


def test_a_full_disk_and_a_refusal_are_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = Store(tmp_path), list[int]()

    def refused(*_: Any) -> None:
        calls.append(1)
        raise PermissionError(13, "Permission denied")

    def full(*_: Any) -> None:
        calls.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(store._fs), "pipe_file", refused)
    with pytest.raises(StorageError, match=r"/x: cannot be written: .*Permission denied"):
        store.write("x", b"")
    monkeypatch.setattr(type(store._fs), "pipe_file", full)
    with pytest.raises(OSError, match="No space left"):
        store.write("x", b"")
    assert len(calls) == 2


def test_locations_are_joined_named_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert [is_uri(location) for location in ("s3://b/x", "GS://b", "runs/x", Path("s3://b"), "a:b")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert join_location("s3://b/runs/", "demo", "model") == "s3://b/runs/demo/model"
    assert join_location("./runs//", "demo") == "runs/demo"
    assert (base_name("s3://b/runs/demo/"), base_name("runs/demo")) == ("demo", "demo")
    assert (resolved("s3://b/x"), resolved("runs/../runs")) == ("s3://b/x", str(tmp_path / "runs"))
    assert (can_be_folder("s3://b/x"), can_be_folder("."), can_be_folder("nowhere")) == (True, True, False)
    assert (output_folder("s3://b/x"), output_folder("runs/demo")) == (Path(), Path("runs/demo"))
    assert (local_disk("s3://b/x"), local_disk("runs")) == (cache_folder(), tmp_path / "runs")
