"""Files in an object store, on a real S3 server: copies in the cache, faults half way, run directories, checkpoints."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import sdpo.storage
from orchestrator.cli import main
from orchestrator.commands.train.summary import summary_lines
from orchestrator.run_dir.metrics_log import MetricsLog
from orchestrator.run_dir.run_dir import RunDir
from orchestrator.run_dir.run_view import RunView
from sdpo.config import RunConfig
from sdpo.errors import CheckpointError, ConfigError, StorageError, TransferError
from sdpo.run_layout import RAY_ADDRESS
from sdpo.storage import Store
from sdpo.storage_cache import borrowed, cache_folder, fetched
from sdpo.taskfile import load_tasks
from tests.fixtures.learner import make_config, masters, one_rank
from tests.fixtures.s3_server import BUCKET, S3, s3_server
from tests.fixtures.tiny_models import make_tiny_model

s3fs = import_module("s3fs")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as running, pytest.MonkeyPatch.context() as patch:
        for key, value in running.environment.items():
            patch.setenv(key, value)
        yield running


@pytest.fixture
def base(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder of the store and a cache of the test's own; no waits between tries."""
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sdpo.storage, "PAUSES_S", (0.0,))
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    yield f"s3://{BUCKET}/{tmp_path.name}"
    server.heal()


def started(base: str, **changes: Any) -> RunDir:
    run_dir = RunDir(config_of(base, **changes))
    run_dir.check()
    run_dir.open({"tasks.train": "a"})
    return run_dir


def config_of(base: str, **changes: Any) -> RunConfig:
    return RunConfig.model_validate({"name": "run", "dir": base, "checkpoint": {"keep_last": 1}} | changes)


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("nope://x/model", r"nope://x/model: Protocol not known: nope; allowed: a path, s3://"),
        ("gs://x/model", r"gs://x/model: gs:// needs a package that is missing: pip install 'sdpo\[gcs\]'"),
        ("s3://no-such-bucket/model", r"s3://no-such-bucket/model: cannot be listed: .*bucket does not exist"),
        (f"s3://{BUCKET}/nowhere", rf"s3://{BUCKET}/nowhere: no such file or folder there"),
    ],
)
def test_a_uri_that_cannot_be_used_is_one_line_and_exit_code_2(
    uri: str, line: str, base: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StorageError, match=line):
        fetched(uri)
    assert main(["export", uri, "OUT"]) == 2
    assert capfd.readouterr().err.startswith(f"sdpo: {uri}")


def test_a_run_directory_in_a_bucket_that_is_not_there_is_refused_before_anything_starts(base: str) -> None:
    run_dir = RunDir(config_of("s3://no-such-bucket/runs"))
    run_dir.check()
    with pytest.raises(
        StorageError, match=r"s3://no-such-bucket/runs/run/lease/000001\.json: cannot be created: .*bucket"
    ):
        run_dir.open({})
    run_dir.close()


def test_missing_credentials_are_said_at_once(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=rf"{base}/x: cannot be read: Unable to locate credentials"):
        Store(base).read("x")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_copy_is_brought_once_whoever_asks_and_again_when_it_has_changed(base: str, server: S3) -> None:
    store = Store(base)
    store.upload({"model/config.json": ROOT / "examples/tinycoder/model/config.json"})
    store.upload({"tasks.jsonl": ROOT / "examples/tinycoder/tasks/heldout.jsonl"})
    copies: list[Path] = []
    threads = [threading.Thread(target=lambda: copies.append(fetched(f"{base}/model"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(copies) == 4
    assert len(set(copies)) == 1
    name = base.removeprefix("s3:/") + "/model/config.json"
    assert server.log().count(f"GET {name}") == 1
    assert (copies[0] / "config.json").read_bytes() == (ROOT / "examples/tinycoder/model/config.json").read_bytes()
    store.write("model/config.json", b"{}")
    assert (fetched(f"{base}/model") / "config.json").read_text() == "{}"
    tasks = fetched(f"{base}/tasks.jsonl")
    assert tasks.name == "tasks.jsonl"
    assert load_tasks(tasks) == load_tasks(ROOT / "examples/tinycoder/tasks/heldout.jsonl")
    with borrowed(f"{base}/tasks.jsonl") as copy:
        assert copy.is_file()
    assert not copy.exists()


def test_what_was_cut_off_half_way_leaves_no_copy(base: str, server: S3) -> None:
    Store(base).write("a", bytes(1000))
    Store(base).write("b", bytes(1000))
    server.fail("GET", "half_way0/b")
    with pytest.raises(TransferError, match=rf"^{base}/b: was not read: "):
        fetched(base)
    assert [path for path in cache_folder("fetched").iterdir() if path.is_dir()] == []
    server.heal()
    assert sorted(path.name for path in fetched(base).iterdir()) == ["a", "b"]


def test_a_run_goes_on_elsewhere_with_what_is_in_the_store(base: str, server: S3) -> None:
    run_dir = started(base)
    assert run_dir.next_incarnation() == 1
    log = MetricsLog(run_dir.path, resumed_steps=0, tensorboard=False)
    log.write(0, {"heldout/pass@1": 0.25})
    (run_dir.path / "samples").mkdir()
    (run_dir.path / "samples/step-000001.jsonl").write_text("{}\n")
    server.fail("PUT", "metrics.jsonl")
    assert run_dir.push_if_possible().startswith(f"{base}/run/metrics.jsonl: was not written: ")
    with pytest.raises(ConfigError, match=rf"{base}/run: is in use by a live run"):
        started(base)
    server.heal()
    assert run_dir.push_if_possible() == ""
    asked = len(server.log())
    run_dir.push()
    assert server.log()[asked:] == [], "what is there already does not travel again"
    run_dir.close()
    shutil.rmtree(cache_folder())

    with pytest.raises(ConfigError, match=rf"^seed=1 \(was 0\): .*\({base}/run holds the run\)"):
        started(base, seed=1)
    with pytest.raises(ConfigError, match=rf"tasks\.train: not what the run in {base}/run"):
        RunDir(config_of(base)).check_inputs({"tasks.train": "b"})
    again = started(base)
    assert again.next_incarnation() == 2
    assert not (again.path / "samples").exists(), "a run that goes on does not read them"
    again.close()
    view = RunView(f"{base}/run")
    assert (view.series("heldout/pass@1"), view.sampled_steps, view.checkpoints) == ([(0, 0.25)], [1], [])
    assert summary_lines(again.path)[-1] == f"run directory: {base}/run"
    with pytest.raises(ConfigError, match=rf"{base}/none: allowed: a run directory, which holds config.yaml"):
        RunView(f"{base}/none")


def test_a_run_in_a_store_is_watched_and_stopped_by_its_uri(base: str, capfd: pytest.CaptureFixture[str]) -> None:
    uri = f"{base}/run"
    run_dir = started(base)
    run_dir.push()
    assert main(["stop", uri]) == 1
    assert f"{uri}: no run is active there now" in capfd.readouterr().err
    (run_dir.path / "logs").mkdir()
    line = "2026-11-23T03:20:26.123456Z INFO env-1 step=1 | judged\n"
    (run_dir.path / "logs/env-1.log").write_text(line)
    (run_dir.path / RAY_ADDRESS).write_text(json.dumps({"gcs": "127.0.0.1:1", "host": "a", "pid": 1}))
    run_dir.push()
    run_dir.close()
    assert main(["logs", uri]) == 0
    assert capfd.readouterr().out == line
    for words, code, said in (
        (["status", uri], 1, f"{uri}: no run is active there now: Ray at "),
        (["stop", uri], 1, ":1 cannot be reached"),
        (["logs", uri, "--follow"], 2, f"--follow: the lines of {uri} come with every step"),
        (["logs", f"{base}/none"], 2, f"{base}/none: no logs there"),
    ):
        assert main(words) == code, words
        assert said in capfd.readouterr().err


def save(run_dir: RunDir, steps: int, shards: int = 3, *, commit: bool = True) -> str:
    place = run_dir.checkpoints.begin(steps)
    files = {f"shard-{i}": ROOT / "examples/tinycoder/model/config.json" for i in range(shards)}
    Store(place).upload(files)
    if commit:
        run_dir.checkpoints.commit(place, steps, 0.5)
    return place


def folders(base: str) -> list[str]:
    return Store(f"{base}/run").names("checkpoints")


def test_half_a_checkpoint_is_never_read_and_removed_by_the_next_start(base: str, server: S3) -> None:
    run_dir = started(base)
    first = save(run_dir, 1)
    server.fail("PUT", "step-000002.1/shard", after=1)
    with pytest.raises(TransferError, match=rf"^{base}/run/checkpoints/step-000002\.1/shard-\d: was not written: "):
        save(run_dir, 2)
    server.heal()
    assert folders(base) == ["step-000001.1", "step-000002.1"]
    assert run_dir.checkpoints.newest() == (first, 1)
    assert [(kept.steps, kept.pass_at_1) for kept in RunView(f"{base}/run").checkpoints] == [(1, 0.5)]
    run_dir.close()
    run_dir = started(base)
    assert folders(base) == ["step-000001.1"]
    second = save(run_dir, 2)
    assert second.endswith("step-000002.2"), "another holder never writes into the same folder"
    assert folders(base) == ["step-000002.2"], "keep_last=1"
    save(run_dir, 3, commit=False)
    assert run_dir.checkpoints.newest() == (second, 2)
    Store(second).write("state.json", b"{")
    with pytest.raises(CheckpointError, match=rf"{second}/state\.json: not a complete checkpoint .*; delete {second} "):
        run_dir.checkpoints.newest()
    run_dir.close()


def test_a_rank_saves_loads_and_exports_by_uri(base: str, server: S3, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "tiny")
    Store(base).upload({f"tiny/{file.name}": file for file in model.iterdir()})
    config = make_config(model, "bfloat16", name="run", dir=base)
    config = config.model_copy(update={"model": config.model.model_copy(update={"path": f"{base}/tiny"})})
    run_dir = RunDir(config)
    run_dir.open({})
    with one_rank(config) as learner:
        weights = masters(learner)
        place = run_dir.checkpoints.begin(1)
        server.fail("PUT", "checkpoints/")
        with pytest.raises(CheckpointError, match=rf"^checkpoint {place}: learner rank 0 could not write it: {place}/"):
            learner.save(place)
        server.heal()
        assert run_dir.checkpoints.newest() is None
        place = run_dir.checkpoints.begin(1)
        learner.save(place)
        run_dir.checkpoints.commit(place, 1, None)
        server.fail("PUT", "model/config.json")
        with pytest.raises(TransferError, match=rf"^{base}/run/model/config\.json: was not written"):
            learner.export(run_dir.model)
        assert RunView(run_dir.path).model_location is None, "half a model is none"
        server.heal()
        learner.export(run_dir.model)
    with one_rank(config, place) as loaded:
        assert all(tensor.equal(weights[name]) for name, tensor in masters(loaded).items())
    run_dir.close()
    assert list(cache_folder("scratch").iterdir()) == []
    assert RunView(f"{base}/run").model_location == f"{base}/run/model"
    assert main(["export", f"{base}/run", str(tmp_path / "out")]) == 0
    exported = (tmp_path / "out/model.safetensors").read_bytes()
    assert (fetched(f"{base}/run/model") / "model.safetensors").read_bytes() == exported
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
