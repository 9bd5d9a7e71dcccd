"""The run directory: its lock, what may change on resuming, and which checkpoints stay and are taken."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from orchestrator.commands.train.command import of_run_directory
from orchestrator.commands.train.summary import summary_lines
from orchestrator.run_dir.checkpoints import best_first
from orchestrator.run_dir.resume_rules import FREE, FREE_UNLESS_DETERMINISTIC, refused_change
from orchestrator.run_dir.run_dir import RunDir
from orchestrator.run_dir.run_view import RunView
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import CheckpointError, ConfigError
from sdpo.files import is_full

DOCS = Path(__file__).parents[2] / "docs/restart.md"


def config(folder: Path | str = "runs", **changes: Any) -> RunConfig:
    return RunConfig.model_validate({"name": "r", "dir": str(folder)} | changes)


def opened(folder: Path, **changes: Any) -> RunDir:
    run_dir = RunDir(config(folder, **changes))
    run_dir.check()
    run_dir.open({})
    return run_dir


def begun(folder: Path, **changes: Any) -> None:
    """A run that measured something and ended."""
    run_dir = opened(folder, **changes)
    (run_dir.path / "metrics.jsonl").write_text('{"step": 0}\n')
    run_dir.close()


def save(run_dir: RunDir, steps: int, pass_at_1: float | None = None) -> Path:
    folder = begin(run_dir, steps)
    (folder / "shard").write_text(f"weights after {steps}")
    run_dir.checkpoints.commit(str(folder), steps, pass_at_1)
    return folder


def begin(run_dir: RunDir, steps: int) -> Path:
    """The folder of a checkpoint, made as the learner makes it."""
    folder = Path(run_dir.checkpoints.begin(steps))
    folder.mkdir(parents=True)
    return folder


def newest(run_dir: RunDir) -> tuple[str, int]:
    """Name and steps of the newest checkpoint."""
    found = run_dir.checkpoints.newest()
    assert found is not None
    assert Path(found[0]).parent == run_dir.path / "checkpoints"
    return Path(found[0]).name, found[1]


def kept(run_dir: RunDir) -> list[int]:
    folders = sorted((run_dir.path / "checkpoints").iterdir())
    assert all((folder / "state.json").exists() for folder in folders)
    return [int(folder.name.removeprefix("step-").partition(".")[0]) for folder in folders]


def test_the_newest_stay_and_the_best_stay_whatever_their_age(tmp_path: Path) -> None:
    run_dir = opened(tmp_path, checkpoint={"keep_last": 2, "keep_best": 2})
    rates = {5: 0.4, 10: 0.9, 15: None, 20: 0.9, 25: 0.5, 30: 0.7, 35: None}
    history = []
    for steps, rate in rates.items():
        save(run_dir, steps, rate)
        history.append(kept(run_dir))
    assert history == [[5], [5, 10], [5, 10, 15], [10, 15, 20], [10, 20, 25], [10, 20, 25, 30], [10, 20, 30, 35]]
    assert newest(run_dir) == ("step-000035.1", 35)
    state = json.loads((run_dir.path / "checkpoints/step-000020.1/state.json").read_text())
    assert state == {"steps": 20, "pass_at_1": 0.9, "reward": None}


def test_the_best_outlives_restarts_and_a_smaller_keep_best(tmp_path: Path) -> None:
    """Also one that was saved when nobody asked for the best; one whose score is lost is not the best."""
    run_dir = opened(tmp_path, checkpoint={"keep_last": 3})
    for steps, rate in {10: 0.9, 20: 0.8, 30: 0.1}.items():
        save(run_dir, steps, rate)
    run_dir.close()
    run_dir = opened(tmp_path, checkpoint={"keep_last": 1, "keep_best": 2})
    save(run_dir, 40, 0.2)
    assert kept(run_dir) == [10, 20, 40]
    run_dir.close()
    run_dir = opened(tmp_path, checkpoint={"keep_last": 1, "keep_best": 1})
    save(run_dir, 50, None)
    assert kept(run_dir) == [10, 50]
    assert [k.steps for k in best_first(RunView(run_dir.path).checkpoints, "pass_rate")] == [10]
    assert summary_lines(run_dir.path)[0] == (
        f"best held-out pass@1 of a checkpoint: 0.900, after step 10: sdpo export {run_dir.path} OUT --best"
    )
    (run_dir.path / "checkpoints/step-000010.1/state.json").write_text("{")
    save(run_dir, 60, 0.9)
    assert kept(run_dir) == [60]


def test_of_equals_the_newest_is_best_also_past_a_million_steps(tmp_path: Path) -> None:
    run_dir = opened(tmp_path, checkpoint={"keep_last": 1, "keep_best": 1})
    for steps in (999_999, 1_000_000, 1_000_001):
        save(run_dir, steps, None if steps == 1_000_001 else 0.5)
    assert sorted(kept(run_dir)) == [1_000_000, 1_000_001]


def test_without_keep_best_only_age_counts_also_past_a_million_steps(tmp_path: Path) -> None:
    run_dir = opened(tmp_path, checkpoint={"keep_last": 2})
    for steps in (999_998, 999_999, 1_000_000):
        save(run_dir, steps, 1.0 if steps == 999_998 else 0.0)
    assert sorted(kept(run_dir)) == [999_999, 1_000_000]
    assert newest(run_dir) == ("step-1000000.1", 1_000_000)


def test_what_was_not_finished_is_never_taken_and_removed_at_the_next_start(tmp_path: Path) -> None:
    run_dir = opened(tmp_path)
    (begin(run_dir, 7) / "shard").write_text("half")
    assert run_dir.checkpoints.newest() is None
    run_dir.close()
    again = opened(tmp_path)
    assert list((again.path / "checkpoints").iterdir()) == []
    save(again, 5)
    (begin(again, 6) / "shard").write_text("half")
    assert newest(again) == ("step-000005.2", 5)


@pytest.mark.parametrize("text", ["{", "", '{"pass_at_1": 0.5}'])
def test_a_damaged_newest_checkpoint_is_refused_and_none_older_taken(tmp_path: Path, text: str) -> None:
    run_dir = opened(tmp_path)
    save(run_dir, 5)
    place = save(run_dir, 6)
    (place / "state.json").write_text(text)
    with pytest.raises(
        CheckpointError, match=r"state\.json: not a complete checkpoint .*; delete .*step-000006\.1 to use"
    ):
        run_dir.checkpoints.newest()
    assert kept(run_dir) == [5, 6], "nothing is deleted unasked"


@pytest.mark.parametrize("interrupted", ["before the mark is written", "removal of the old one"])
def test_a_crash_while_committing_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = opened(tmp_path, checkpoint={"keep_last": 1})
    save(run_dir, 1)
    before_mark = interrupted == "before the mark is written"

    remove_folder = shutil.rmtree

    def power_cut(path: Any, *_: Any, **__: Any) -> None:
        if before_mark or Path(path).name == "step-000001.1":
            raise KeyboardInterrupt
        remove_folder(path, ignore_errors=True)

    monkeypatch.setattr("os.replace" if before_mark else "shutil.rmtree", power_cut)
    with pytest.raises(KeyboardInterrupt):
        save(run_dir, 2)
    monkeypatch.undo()
    run_dir.close()
    again = opened(tmp_path)
    assert kept(again) == [1 if before_mark else 2], "what was half written or half removed is gone"
    found = again.checkpoints.newest()
    assert found is not None
    assert found[1] == (1 if before_mark else 2)
    assert (Path(found[0]) / "shard").read_text() == f"weights after {found[1]}"


def test_the_mark_comes_last_and_goes_first_and_everything_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of what reaches the disk, of a checkpoint that is saved and of one that is removed."""
    run_dir = opened(tmp_path, checkpoint={"keep_last": 1})
    save(run_dir, 1)
    begun = begin(run_dir, 2)
    (begun / "shard").write_text("weights")
    events: list[str] = []

    def spy(module: str, function: str, event: Callable[[Any], str]) -> None:
        real = getattr(import_module(module), function)

        def called(*arguments: Any, **options: Any) -> Any:
            events.append(event(arguments[0]))
            return real(*arguments, **options)

        monkeypatch.setattr(f"{module}.{function}", called)

    def opened_path(handle: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        return f"flush {path.relative_to(run_dir.path.absolute())}"

    spy("os", "fsync", opened_path)
    spy("os", "remove", lambda path: f"remove {Path(path).relative_to(run_dir.path.absolute())}")
    spy("shutil", "rmtree", lambda path: f"remove {Path(path).relative_to(run_dir.path.absolute())}")
    run_dir.checkpoints.commit(str(begun), 2, None)
    new, old = "checkpoints/step-000002.1", "checkpoints/step-000001.1"
    assert events == [
        f"flush {new}/shard",
        f"flush {new}",
        "flush checkpoints",
        f"flush {new}/.state.json.unfinished",
        f"flush {new}",
        f"remove {old}/state.json",
        f"flush {old}/shard",
        f"flush {old}",
        "flush checkpoints",
        f"remove {old}",
    ]


def test_checkpoints_of_version_0_1_0_are_read_kept_and_refused_when_damaged(tmp_path: Path) -> None:
    """They had no number of a holder, and were renamed from unfinished-*."""
    run_dir = opened(tmp_path, checkpoint={"keep_last": 2})
    for steps in (3, 4):
        old = run_dir.path / f"checkpoints/step-{steps:06d}"
        old.mkdir(parents=True)
        (old / "state.json").write_text(f'{{"steps": {steps}, "pass_at_1": 0.25}}')
    half = run_dir.path / "checkpoints/unfinished-000005-0a1b2c3d"
    half.mkdir()
    (half / "state.json").write_text('{"steps": 5}')
    mine = run_dir.path / "checkpoints/mine"
    mine.mkdir()
    run_dir.close()
    run_dir = opened(tmp_path, checkpoint={"keep_last": 2})
    assert not half.exists()
    assert newest(run_dir) == ("step-000004", 4)
    assert [(c.steps, c.pass_at_1) for c in RunView(run_dir.path).checkpoints] == [(3, 0.25), (4, 0.25)]
    save(run_dir, 4)
    assert newest(run_dir) == ("step-000004.2", 4), "of one step, that of the later holder"
    assert mine.exists(), "what is no checkpoint stays"
    mine.rmdir()
    assert kept(run_dir) == [4, 4]
    (run_dir.path / "checkpoints/step-000006").mkdir()
    with pytest.raises(CheckpointError, match=r"step-000006/state\.json: not a complete checkpoint"):
        run_dir.checkpoints.newest()
    run_dir.checkpoints.clear()
    assert (run_dir.path / "checkpoints/step-000006").exists(), "it was complete once: not removed unasked"


def test_incarnations_are_counted_and_a_live_run_locks_its_directory(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert [first.next_incarnation(), first.next_incarnation()] == [1, 2]
    with pytest.raises(ConfigError, match="in use by a live run"):
        opened(tmp_path)
    first.close()
    assert opened(tmp_path).next_incarnation() == 3


def test_a_run_directory_refuses_another_config_but_not_more_steps(tmp_path: Path) -> None:
    opened(tmp_path, seed=7).close()
    begun(tmp_path)  # nothing had been measured with the other seed
    opened(tmp_path, steps=99, checkpoint={"keep_last": 5}).close()
    with pytest.raises(ConfigError, match=r"^batch\.tasks=3 \(was 16\): .*allowed: another `name`"):
        RunDir(config(tmp_path, batch={"tasks": 3})).check()
    with pytest.raises(ConfigError, match=r"checkpoint\.resume=never"):
        RunDir(config(tmp_path, checkpoint={"resume": "never"})).check()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, r"seed=1 \(was 0\)"),
    ({"deterministic": True}, r"deterministic=True \(was False\)"),
    ({"learner": {"optimizer": {"learning_rate": 1.0}}}, r"learner\.optimizer\.learning_rate=1\.0 \(was 1e-05\)"),
    ({"teacher": {"regularisation": {"kind": "frozen"}}}, r"teacher\.regularisation\.kind=frozen \(was ema\)"),
    (
        {"teacher": {"regularisation": {"kind": "ema", "rate": 0.5}}},
        r"teacher\.regularisation\.rate=0\.5 \(was 0\.05\)",
    ),
    ({"rollout": {"sampling": {"temperature": 0.5}}}, r"rollout\.sampling\.temperature=0\.5 \(was 1\.0\)"),
    ({"env": {"sandbox": {"kind": "bubblewrap", "wall_time_s": 9.0}}}, r"env\.sandbox\.wall_time_s=9\.0 \(was 5\.0\)"),
    ({"learner": {"backend": "zero2"}}, r"learner\.backend=zero2 \(was fsdp2\)"),
    ({"learner": {"lora": {"rank": 4}}}, r"learner\.lora\.rank=4 \(was None\)"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_would_make_it_another_run_must_not_change(changes: dict[str, Any], message: str) -> None:
    refused = refused_change(config(), config(**changes))
    assert refused is not None
    assert re.match(message, refused), refused
    assert refused.endswith("allowed: another `name`")


FREE_CHANGES: list[dict[str, Any]] = [
    {"steps": 1, "max_worker_restarts": 1, "deadlines": {"start_s": 1.0}, "record": {"samples_per_step": 0}},
    {"evaluation": {"every_steps": 1}, "checkpoint": {"keep_last": 9}, "dir": "elsewhere"},
    {"placement": {"env": {"max_workers": 9}, "teacher": {"workers": 3}}, "weights": {"bucket_bytes": 1000}},
]
FLOAT_ORDER: list[dict[str, Any]] = [
    {"placement": {"rollout": {"workers": 3}}},
    {"rollout": {"max_num_seqs": 3}},
    {"teacher": {"num_threads": 7}},
    {"placement": {"learner": {"ranks": 2}}},
    {"learner": {"tokens_per_micro_batch": 100}},
]


@pytest.mark.parametrize("deterministic", [False, True])
def test_what_touches_no_number_may_change_and_what_reorders_sums_may_where_bits_do_not_matter(
    deterministic: bool,
) -> None:
    before = config(deterministic=deterministic)
    for changes in FREE_CHANGES:
        assert refused_change(before, config(deterministic=deterministic, **changes)) is None
    for changes in FLOAT_ORDER:
        refused = refused_change(before, config(deterministic=deterministic, **changes))
        assert (refused is not None) is deterministic
        assert refused is None or "a deterministic run cannot be resumed with another value" in refused


@pytest.mark.parametrize("backend", ["zero1", "zero2", "zero3"])
def test_deepspeed_goes_on_with_the_ranks_that_saved_only(backend: str) -> None:
    before, now = (
        config(learner={"backend": backend}),
        config(learner={"backend": backend}, placement={"learner": {"ranks": 2}}),
    )
    assert refused_change(before, now) == (
        f"placement.learner.ranks=2 (was 1): checkpoints of learner.backend={backend} need the number of ranks that "
        "wrote them; "
        "allowed: 1, or another `name`"
    )


def test_another_model_is_refused_and_a_run_that_did_not_record_its_model_goes_on(tmp_path: Path) -> None:
    run_dir = RunDir(config(tmp_path))
    run_dir.open({"tasks.train": "t", "model weights": "a"})
    (run_dir.path / "metrics.jsonl").write_text('{"step": 0}\n')
    run_dir.close()
    RunDir(config(tmp_path)).check_inputs({"tasks.train": "t", "model weights": "a", "model config": "new"})
    with pytest.raises(ConfigError, match=r"model\.path=.*: its weights changed since the run in .* was started"):
        RunDir(config(tmp_path)).check_inputs({"tasks.train": "t", "model weights": "b"})


def test_a_renamed_run_directory_goes_on_under_its_new_name(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "r").rename(tmp_path / "20251128")
    file = tmp_path / "20251128/config.yaml"
    found = load_run_config(file, of_run_directory(file))
    assert (found.name, found.dir) == ("20251128", str(tmp_path))
    run_dir = RunDir(found)
    run_dir.check()
    run_dir.check_inputs({})
    run_dir.open({})
    assert run_dir.path == tmp_path / "20251128"
    run_dir.close()
    assert RunView(tmp_path / "20251128").config.name == "20251128"
    assert of_run_directory(tmp_path / "config.yaml") == []
    (tmp_path / "20251128/.origin.json").write_text('{"uri": "s3://bucket/r", "tags": {}}')
    assert of_run_directory(file) == [], "a local copy of a directory in a store"


@pytest.mark.parametrize("place", ["{file}", "{file}/below", "{broken}"])
def test_a_folder_that_cannot_take_the_run_is_refused_before_anything_is_written(tmp_path: Path, place: str) -> None:
    file, broken = tmp_path / "file", tmp_path / "broken"
    file.touch()
    broken.symlink_to(tmp_path / "nowhere")
    folder = place.format(file=file, broken=broken)
    with pytest.raises(ConfigError, match=rf"^dir={re.escape(folder)}: .*; allowed: a folder that can be written$"):
        RunDir(config(folder)).check()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "file"]


def test_every_rule_names_a_key_and_is_documented() -> None:
    text = DOCS.read_text()
    for rule in (*FREE, *FREE_UNLESS_DETERMINISTIC):
        value: Any = config().model_dump()
        for part in rule.split("."):
            value = value[part]
        assert f"`{rule}`" in text, rule
    assert not set(FREE) & set(FREE_UNLESS_DETERMINISTIC)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_wherever_it_is_met(number: int) -> None:
    here = OSError(number, os.strerror(number))
    in_an_actor = RayTaskError("export", "its traceback", here).as_instanceof_cause()
    in_a_gang = CheckpointError(f"checkpoint c: learner rank 1 could not write it: {here}")
    assert all(is_full(error) for error in (here, in_an_actor, in_a_gang))
    assert not any(is_full(error) for error in (OSError(errno.EIO, "I/O error"), CheckpointError("c: damaged")))


def test_keep_best_needs_something_to_measure() -> None:
    with pytest.raises(ValueError, match=r"checkpoint\.keep_best=1: allowed without tasks\.heldout: 0"):
        config(checkpoint={"keep_best": 1}, tasks={"heldout": None})
    with pytest.raises(ValueError, match=r"rollout\.kv_cache_gib=none: allowed with deterministic"):
        config(deterministic=True, rollout={"kv_cache_gib": None})


def test_a_run_goes_on_with_the_tasks_it_was_started_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = {"env.code": "a", "tasks.train": "b"}
    run_dir = RunDir(config(tmp_path))
    run_dir.check_inputs(digests)
    run_dir.open(digests | {"tasks.train": "empty"})
    run_dir.close()
    run_dir.check_inputs(digests)
    run_dir.open(digests)
    (run_dir.path / "metrics.jsonl").write_text('{"step": 0}\n')
    run_dir.close()
    run_dir.check_inputs(digests)
    with pytest.raises(ConfigError, match=r"tasks\.train: not what the run in .* was started with"):
        run_dir.check_inputs(digests | {"tasks.train": "c"})
    assert capsys.readouterr().out == ""
    run_dir.check_inputs(digests | {"env.code": "mended"})
    assert "env.code: the files have changed" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"env\.code: not what the run"):
        RunDir(config(tmp_path, deterministic=True)).check_inputs(digests | {"env.code": "mended"})


@pytest.mark.parametrize(
    ("before", "now", "line"),
    [
        ({"adapter": "mbpp"}, {"adapter": "humaneval"}, r"tasks\.adapter=humaneval \(was mbpp\)"),
        ({"options": {"seed": 1}}, {"options": {"seed": 2}}, r"tasks\.options\.seed=2 \(was 1\)"),
        ({"options": {"seed": 1}}, {}, r"tasks\.options\.seed=None \(was 1\)"),
    ],
)
def test_adapter_and_options_may_not_change(before: Any, now: Any, line: str, tmp_path: Path) -> None:
    begun(tmp_path, tasks={"adapter": "mbpp"} | before)
    with pytest.raises(ConfigError, match=line):
        RunDir(config(tmp_path, tasks={"adapter": "mbpp"} | now)).check()
