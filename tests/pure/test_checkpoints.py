"""`Checkpoints` over both kinds of stores: what is complete, what is taken, and what another holder finds."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run_dir.checkpoints import Checkpoint, Checkpoints, best_first, list_checkpoints
from sdpo.config import CheckpointConfig
from sdpo.errors import CheckpointError
from sdpo.storage import Store, base_name


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A run directory on a disk or in an object store."""
    yield Store(tmp_path / "run" if request.param == "disk" else f"memory://{tmp_path.name}/run")
    import_module("fsspec").filesystem("memory").store.clear()


def checkpoints_of(store: Store, holder: int, keep_last: int = 2, keep_best: int = 0) -> Checkpoints:
    return Checkpoints(store, CheckpointConfig(keep_last=keep_last, keep_best=keep_best), lambda: holder)


def begin(checkpoints: Checkpoints, steps: int) -> str:
    location = checkpoints.begin(steps)
    Store(location).write("shard", b"weights")
    return location


def save(checkpoints: Checkpoints, steps: int, pass_at_1: float | None = None) -> None:
    checkpoints.commit(begin(checkpoints, steps), steps, pass_at_1)


def test_only_a_complete_checkpoint_is_taken_and_the_next_holder_removes_the_others(store: Store) -> None:
    first = checkpoints_of(store, 1)
    assert first.newest() is None
    save(first, 1)
    half = begin(first, 2)
    newest = first.newest()
    assert newest is not None
    assert (base_name(newest[0]), newest[1]) == ("step-000001.1", 1)
    assert Store(half).exists("shard")
    second = checkpoints_of(store, 2)
    second.clear()
    assert store.names("checkpoints") == ["step-000001.1"]
    assert base_name(begin(second, 2)) == "step-000002.2", "no two holders write into one folder"
    assert sorted(store.listing("checkpoints/step-000001.1")) == [
        "checkpoints/step-000001.1/shard",
        "checkpoints/step-000001.1/state.json",
    ]


def test_the_newest_and_the_best_stay_with_all_their_files(store: Store) -> None:
    checkpoints = checkpoints_of(store, 3, keep_last=1, keep_best=1)
    for steps, pass_at_1 in {1: 0.5, 2: 0.9, 3: None, 4: 0.9, 5: 0.1}.items():
        save(checkpoints, steps, pass_at_1)
    assert store.names("checkpoints") == ["step-000004.3", "step-000005.3"]
    entries = list_checkpoints(store)
    assert [(c.steps, c.pass_at_1) for c in entries] == [(4, 0.9), (5, 0.1)]
    assert [c.steps for c in best_first(entries, "pass_rate")] == [4, 5]
    assert [c.location for c in entries] == [f"{store.location}/checkpoints/step-00000{n}.3" for n in (4, 5)]
    assert len(store.listing("checkpoints")) == 4


def test_damage_of_the_newest_is_refused_by_its_location(store: Store) -> None:
    checkpoints = checkpoints_of(store, 1)
    save(checkpoints, 1)
    save(checkpoints, 2)
    store.write("checkpoints/step-000002.1/state.json", b"{")
    newest = f"{store.location}/checkpoints/step-000002.1"
    with pytest.raises(CheckpointError, match=f"^{newest}/state.json: not a complete checkpoint .*; delete {newest} "):
        checkpoints.newest()
    store.delete_folder("checkpoints/step-000002.1")
    assert checkpoints.newest() == (f"{store.location}/checkpoints/step-000001.1", 1)


@pytest.mark.parametrize(("best_by", "order"), [("pass_rate", [4, 3, 2, 6, 5]), ("reward", [5, 4, 3, 2])])
def test_the_best_by_pass_rate_or_by_reward(best_by: Any, order: list[int]) -> None:
    """Of equals the other score decides, then age; version 0.1.0 recorded no reward; one was not measured."""
    scores = {1: (None, None), 2: (0.5, 1.1), 3: (0.5, 1.2), 4: (0.5, 1.2), 5: (0.0, 1.3), 6: (0.5, None)}
    entries = [
        Checkpoint(steps=steps, location=f"at/{steps}", pass_at_1=rate, reward=reward)
        for steps, (rate, reward) in scores.items()
    ]
    assert [c.steps for c in best_first(entries, best_by)] == order


def test_the_best_by_reward_is_kept_with_its_scores(store: Store) -> None:
    checkpoints = Checkpoints(store, CheckpointConfig(keep_last=1, keep_best=1, best_by="reward"), lambda: 3)
    for steps, reward in {1: -2.0, 2: -1.5, 3: -1.75}.items():
        checkpoints.commit(begin(checkpoints, steps), steps, 0.0, reward)
    assert [(c.steps, c.pass_at_1, c.reward) for c in list_checkpoints(store)] == [(2, 0.0, -1.5), (3, 0.0, -1.75)]
