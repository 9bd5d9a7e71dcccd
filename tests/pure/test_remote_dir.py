"""Local copies of a run directory in an object store (fsspec's, in memory): what is downloaded and uploaded."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run_dir.remote_dir import WorkingCopy, origin_of, reading_copy
from sdpo.storage import Store

BEGUN = {
    "config.yaml": b"seed: 0\n",
    "metrics.jsonl": b'{"step": 0}\n',
    "tensorboard/events": b"events",
    "samples/step-000001.jsonl": b"{}\n",
    "trace/step-000001.jsonl": b"{}\n",
    "rollouts/manifest.json": b"{}",
    "rollouts/batch-000000.safetensors": b"batch",
    "checkpoints/step-000001.1/state.json": b"{}",
    "lease/000001.json": b"{}",
    "model/config.json": b"{}",
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A run directory that another machine left."""
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "cache"))
    store = Store(f"memory://{tmp_path.name}/run")
    for name, content in BEGUN.items():
        store.write(name, content)
    yield store
    import_module("fsspec").filesystem("memory").store.clear()


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are uploaded from now on."""
    names: list[str] = []
    upload = Store.upload

    def spied(self: Store, files: dict[str, Path], timeout_s: float) -> None:
        names.extend(files)
        upload(self, files, timeout_s)

    monkeypatch.setattr(Store, "upload", spied)
    return names


def test_a_run_that_goes_on_downloads_what_it_reads_and_uploads_what_it_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, names = WorkingCopy(store), uploads(monkeypatch)
    copy.path.mkdir(parents=True)
    (copy.path / "of an earlier run").write_text("")
    copy.pull()
    kept = ["config.yaml", "metrics.jsonl", "rollouts/manifest.json", "tensorboard/events"]
    assert files(copy.path) == [".origin.json", *kept]
    assert origin_of(copy.path) == store.location
    copy.push()
    assert names == [], "what was downloaded is there already"
    (copy.path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n')
    (copy.path / "samples").mkdir()
    (copy.path / "samples/step-000002.jsonl").write_text("{}\n")
    (copy.path / ".half.unfinished").write_text("")
    (copy.path / "model").mkdir()
    (copy.path / "model/config.json").write_text("of nobody")
    copy.push()
    assert names == ["metrics.jsonl", "samples/step-000002.jsonl"]
    copy.push()
    assert len(names) == 2
    assert store.read("metrics.jsonl") == b'{"step": 0}\n{"step": 1}\n'
    assert store.read("model/config.json") == b"{}"


def test_a_file_that_could_not_be_uploaded_goes_with_the_next_push(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = WorkingCopy(store)
    copy.pull()
    (copy.path / "alarms.jsonl").write_text("{}\n")

    def fails(*_: Any) -> None:
        raise OSError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", fails)
        with pytest.raises(OSError, match="no route"):
            copy.push()
    copy.push()
    assert store.read("alarms.jsonl") == b"{}\n"


def test_a_reader_downloads_what_is_new_and_drops_what_is_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reading_copy(store.location)
    elsewhere = ("checkpoints", "lease", "model")
    assert files(folder) == sorted([".origin.json", *(n for n in BEGUN if n.split("/")[0] not in elsewhere)])
    downloads: list[str] = []
    download = Store.download

    def spied(self: Store, files: dict[str, Path], timeout_s: float) -> None:
        downloads.extend(files)
        download(self, files, timeout_s)

    monkeypatch.setattr(Store, "download", spied)
    store.write("metrics.jsonl", b'{"step": 0}\n{"step": 1}\n')
    store.delete(["trace/step-000001.jsonl"])
    assert reading_copy(store.location) == folder
    assert downloads == ["metrics.jsonl"]
    assert (folder / "metrics.jsonl").read_bytes() == b'{"step": 0}\n{"step": 1}\n'
    assert not (folder / "trace").exists()


def test_a_directory_on_a_disk_is_its_own_copy(tmp_path: Path) -> None:
    copy = WorkingCopy(Store(tmp_path / "run"))
    copy.pull()
    copy.push()
    assert copy.path == tmp_path / "run" == reading_copy(str(tmp_path / "run"))
    assert list(copy.path.iterdir()) == []
    assert origin_of(copy.path) is None
