"""The rollout worker with a real engine in a real Ray actor.

Tests run in order and share engines; the last ones break and kill them.
"""

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import torch

from orchestrator.memory.deaths import lack_of_memory
from rollout_workers.process_reaper import segments_of
from rollout_workers.worker import EngineInfo, RolloutActor
from sdpo.bins import append_tail, tail_log_prob
from sdpo.divergence import generalised_js
from sdpo.errors import InfrastructureError, ModelError, PromptTooLong, WeightSyncError
from sdpo.types import Rollout, RolloutHeader, SamplingParams, TurnRequest, Version, VersionSpan
from sdpo.weights import make_buckets
from tests.fixtures.processes import command_of, descendants, environment_of, family, gone, is_running
from tests.fixtures.rollout import collect, load_reference, named_tensors, next_log_probs, publish, request, run_config
from tests.fixtures.tiny_models import make_tiny_model
from tests.oracle.formulas import support_overlap

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("ray_cluster")]
START_TIMEOUT_S = 300
LOADED, UPDATED = Version(incarnation=0, batch=0), Version(incarnation=1, batch=0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models that differ in their weights only."""
    folder = tmp_path_factory.mktemp("models")
    return make_tiny_model(folder / "first", seed=1), make_tiny_model(folder / "second", seed=2)


def start_worker(model: Path, index: int) -> tuple[Any, EngineInfo]:
    worker = RolloutActor.options(num_cpus=0.25).remote(run_config(model), index)
    return worker, ray.get(worker.start.remote(), timeout=START_TIMEOUT_S)


@pytest.fixture(scope="module")
def started(ray_cluster: str, models: tuple[Path, Path]) -> tuple[Any, EngineInfo]:
    return start_worker(models[0], 0)


@pytest.fixture(scope="module")
def worker(started: tuple[Any, EngineInfo]) -> Any:
    return started[0]


@pytest.fixture(scope="module")
def fresh_worker(ray_cluster: str, models: tuple[Path, Path]) -> Any:
    """An engine that loaded the second model's weights from its folder."""
    return start_worker(models[1], 1)[0]


@pytest.fixture(scope="module")
def finished_refs(worker: Any) -> list[ray.ObjectRef]:
    """Two samples whose arrays are too large to travel inline, left in the object store."""
    return list(worker.generate.remote(request(samples=2, max_tokens=900, first_seed=7)))


@pytest.fixture(scope="module")
def first_turn(worker: Any) -> ray.ObjectRef:
    """An attempt of one turn, of the first model."""
    wanted = request(max_tokens=24, temperature=0.7, first_seed=3)
    return list(worker.generate.remote(wanted))[1]


def wait_until(condition: Any, timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.1)
    return False


def is_engine(process: psutil.Process) -> bool:
    """Whether vLLM has started it: it gives itself a title, or fails to where its environment was changed before."""
    command = " ".join(command_of(process))
    return "VLLM::EngineCore" in command or "multiprocessing.spawn" in command


def test_missing_and_incomplete_models_are_refused_in_one_line(tmp_path: Path, models: tuple[Path, Path]) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    for folder, missing in ((tmp_path / "nowhere", "no such folder"), (broken, "tokenizer.json")):
        worker = RolloutActor.options(num_cpus=0.25).remote(run_config(folder), 9)
        with pytest.raises(ModelError, match=missing) as refused:
            ray.get(worker.start.remote(), timeout=60)
        assert "\n" not in str(getattr(refused.value, "cause", refused.value))
        ray.kill(worker)


def test_an_engine_without_memory_for_its_cache_says_so(models: tuple[Path, Path]) -> None:
    config = run_config(models[0])
    rollout = config.rollout.model_copy(update={"kv_cache_gib": 100_000.0})
    worker = RolloutActor.options(num_cpus=0.25).remote(config.model_copy(update={"rollout": rollout}), 8)
    with pytest.raises(InfrastructureError) as failed:
        ray.get(worker.start.remote(), timeout=START_TIMEOUT_S)
    death = lack_of_memory(failed.value)
    assert death is not None
    assert (death.role, death.actor, death.probable) == ("rollout", "rollout-8", False)
    assert "the engine did not start: ValueError: Available memory on node" in death.reason
    ray.kill(worker)


def test_engine_info(started: tuple[Any, EngineInfo]) -> None:
    _, info = started
    assert (info.name, info.max_model_len_tokens, info.vocab_size) == ("rollout-0", 1024, 384)
    assert all(is_running(pid) for pid in info.pids)
    assert any(is_engine(process) for pid in info.pids for process in family(pid)[:1])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_support_are_the_models(worker: Any, models: tuple[Path, Path], temperature: float) -> None:
    """Engine and reference compute in float32, by different kernels."""
    reference = load_reference(models[0])
    outside = 0
    for header, rollout in collect(worker, request(samples=8, temperature=temperature)).values():
        (segment,) = rollout.segments
        assert segment.support_ids is not None
        assert segment.support_log_probs is not None
        assert segment.log_probs is not None
        num_tokens = len(segment.token_ids)
        sequence = np.concatenate([rollout.prompt_ids, segment.token_ids])
        scores = next_log_probs(reference, sequence)[len(rollout.prompt_ids) - 1 : -1] / temperature
        scores -= np.log(np.exp(scores).sum(-1, keepdims=True))

        assert header.num_response_tokens == num_tokens
        assert segment.support_ids.shape == segment.support_log_probs.shape == (num_tokens, 20)
        assert segment.support_ids.dtype == np.int32
        assert segment.support_log_probs.dtype == segment.log_probs.dtype == np.float32
        assert all(len(set(row)) == 20 for row in segment.support_ids.tolist())
        assert (np.diff(segment.support_log_probs, axis=1) <= 0).all()
        at_support = np.take_along_axis(scores, segment.support_ids.astype(np.int64), 1)
        assert np.abs(at_support - segment.support_log_probs).max() < 1e-3
        assert np.abs(scores[np.arange(num_tokens), segment.token_ids] - segment.log_probs).max() < 1e-3
        kth_best = np.sort(scores, axis=1)[:, -20]
        assert (at_support.min(1) > kth_best - 1e-3).all()
        is_inside = (segment.support_ids == segment.token_ids[:, None]).any(1)
        outside += int((~is_inside).sum())
        inside_scores = np.where(segment.support_ids == segment.token_ids[:, None], segment.support_log_probs, 0).sum(1)
        assert np.array_equal(inside_scores[is_inside], segment.log_probs[is_inside])
        assert (segment.log_probs[~is_inside] <= segment.support_log_probs[~is_inside, -1]).all()
    assert outside > 0, "no sampled token fell outside the support: the test has lost its point"


def test_engine_and_learner_choose_the_same_support(worker: Any, models: tuple[Path, Path]) -> None:
    """On-policy; and so the loss is the same, here against another model as the teacher."""
    student, teacher = (load_reference(model) for model in models)
    overlaps, losses = [], []
    for _, rollout in collect(worker, request(samples=8)).values():
        recorded = rollout.segments[0].support_ids
        assert recorded is not None
        sequence = np.concatenate([rollout.prompt_ids, rollout.response_ids])
        rows = slice(len(rollout.prompt_ids) - 1, -1)
        log_p, log_q = (torch.from_numpy(next_log_probs(m, sequence)[rows]) for m in (student, teacher))
        chosen = log_p.topk(recorded.shape[1]).indices
        overlaps.append(support_overlap(recorded, chosen.numpy().astype(np.int32)))
        losses.append([_js(log_p, log_q, ids) for ids in (torch.from_numpy(recorded.astype(np.int64)), chosen)])
    assert np.mean(overlaps) >= 0.95
    with_recorded, with_chosen = np.mean(losses, axis=0)
    assert with_recorded == pytest.approx(with_chosen, rel=1e-3)
    assert with_chosen > 1e-4, "the two models agree: the comparison says nothing"


def _js(log_p_TV: torch.Tensor, log_q_TV: torch.Tensor, support_TK: torch.Tensor) -> float:
    bins = []
    for log_TV in (log_p_TV, log_q_TV):
        support = log_TV.gather(1, support_TK)
        bins.append(append_tail(support, tail_log_prob(support)))
    return float(generalised_js(bins[0], bins[1], 0.5).mean())


def test_seeds_decide_the_sample(worker: Any) -> None:
    first, again = (collect(worker, request(samples=4)) for _ in range(2))
    other = collect(worker, request(samples=4, first_seed=100))
    for index in range(4):
        assert np.array_equal(first[index][1].response_ids, again[index][1].response_ids)
        assert not np.array_equal(first[index][1].response_ids, other[index][1].response_ids)
    assert len({tuple(r.response_ids.tolist()) for _, r in first.values()}) == 4


def next_turn(worker: Any, previous: Any, seed: int = 9) -> tuple[RolloutHeader, Rollout]:
    """The attempt that `previous` refers to, with eleven tokens of an environment and one more turn."""
    turn = TurnRequest(
        task_id="double-it",
        sample_index=0,
        observation_ids=np.arange(50, 61, dtype=np.int32),
        transcript="before|",
        seed=seed,
        sampling=SamplingParams(temperature=0.7, max_tokens=24),
        support_size=20,
    )
    header, rollout = (ray.get(ref, timeout=60) for ref in worker.extend.remote(turn, previous))
    return header, rollout


def test_turns_go_on_after_every_token_before_them_with_the_models_log_probs(
    worker: Any, models: tuple[Path, Path], first_turn: ray.ObjectRef
) -> None:
    first = ray.get(first_turn, timeout=60)
    _, second = next_turn(worker, first_turn)
    header, third = next_turn(worker, ray.put(second))
    for before, after in ((first, second), (second, third)):
        assert np.array_equal(after.response_ids[: len(before.response_ids)], before.response_ids)
        assert after.segments[len(before.segments)].token_ids.tolist() == list(range(50, 61))
        assert np.array_equal(after.prompt_ids, before.prompt_ids)
    assert [s.author for s in third.segments] == ["model", "environment", "model", "environment", "model"]
    assert (header.num_turns, header.num_environment_tokens) == (3, 22)
    assert (header.num_response_tokens, header.text) == (len(third.response_ids), "before|" + header.reply)

    sequence = np.concatenate([third.prompt_ids, third.response_ids])
    scores = next_log_probs(load_reference(models[0]), sequence)[len(third.prompt_ids) - 1 : -1] / 0.7
    scores -= np.log(np.exp(scores).sum(-1, keepdims=True))
    at_tokens = scores[np.arange(len(third.response_ids)), third.response_ids]
    begin = len(first.response_ids)
    recorded = np.concatenate([np.zeros(11) if s.log_probs is None else s.log_probs for s in third.segments])
    later = third.model_mask & (np.arange(len(recorded)) >= begin)
    assert later.sum() > 10
    assert np.abs(recorded - at_tokens)[later].max() < 1e-3
    assert all(s.support_ids is not None and s.support_ids.shape[1] == 20 for s in third.segments[::2])

    assert np.array_equal(next_turn(worker, first_turn)[1].response_ids, second.response_ids), "seeds decide"
    assert not np.array_equal(next_turn(worker, first_turn, seed=10)[1].response_ids, second.response_ids)


def test_no_support_when_none_is_asked_for(worker: Any) -> None:
    (_, rollout), *_ = collect(worker, request(support_size=0)).values()
    assert rollout.segments[0].support_ids is None
    assert rollout.segments[0].support_log_probs is None
    assert rollout.segments[0].log_probs is not None


def test_greedy_takes_the_most_likely(worker: Any) -> None:
    (_, rollout), *_ = collect(worker, request(temperature=0.0)).values()
    support_ids = rollout.segments[0].support_ids
    assert support_ids is not None
    assert np.array_equal(support_ids[:, 0], rollout.response_ids)


def test_samples_arrive_as_they_end(worker: Any) -> None:
    lengths, arrivals_s, started_s = [], [], time.monotonic()
    for ref in worker.generate.remote(request(samples=12, max_tokens=600)):
        item = ray.get(ref, timeout=60)
        if isinstance(item, RolloutHeader):
            lengths.append(item.num_response_tokens)
            arrivals_s.append(time.monotonic() - started_s)
    assert len(lengths) == 12
    # Every engine step adds a token to each running sample, but samples join some steps apart.
    for position, length in enumerate(lengths):
        assert all(later > length - 50 for later in lengths[position:]), lengths
    assert arrivals_s[0] < 0.7 * arrivals_s[-1]


def test_stop_token_is_part_of_the_segment(worker: Any) -> None:
    ended = list(collect(worker, request(samples=12, max_tokens=600)).values())
    stopped = [(h, r) for h, r in ended if h.finish_reason == "stop"]
    assert stopped
    for header, rollout in stopped:
        assert rollout.response_ids[-1] == 2
        assert "<|im_end|>" not in header.text
    assert all(h.num_response_tokens == 600 for h, _ in ended if h.finish_reason == "length")


def test_long_prompts_are_refused(worker: Any) -> None:
    with pytest.raises(PromptTooLong, match="double-it"):
        ray.get(next(iter(worker.generate.remote(request(max_tokens=1000)))), timeout=60)


def test_many_seeded_prompts_at_once(worker: Any) -> None:
    """More prompt tokens than one engine step takes: none may be split."""
    assert len(collect(worker, request(samples=150, max_tokens=4))) == 150


def test_in_flight_requests_go_on_under_new_weights(
    worker: Any, models: tuple[Path, Path], first_turn: ray.ObjectRef
) -> None:
    streams = worker.generate.remote(request(samples=8, max_tokens=900))
    assert wait_until(lambda: ray.get(worker.health.remote(), timeout=10)["running"] == 8, 20)
    audit = publish(worker, models[1], Version(incarnation=1, batch=0))
    assert audit.max_abs_diff < 1e-3
    headers = [item for item in (ray.get(ref, timeout=120) for ref in streams) if isinstance(item, RolloutHeader)]
    assert len(headers) == 8
    assert (LOADED, UPDATED) in {header.versions for header in headers}
    header, rollout = next_turn(worker, first_turn)
    assert header.versions == (LOADED, UPDATED), "new weights between two turns"
    assert [{span.version for span in s.versions} for s in rollout.segments] == [{LOADED}, set(), {UPDATED}]


def test_updated_engine_equals_a_fresh_one_to_the_bit(worker: Any, fresh_worker: Any) -> None:
    """`worker` was given the second model's weights; `fresh_worker` loaded them."""
    assert ray.get(worker.health.remote(), timeout=10)["version"] == "1.0"
    updated, fresh = (collect(each, request(samples=6, max_tokens=64)) for each in (worker, fresh_worker))
    for index in range(6):
        got, want = updated[index][1].segments[0], fresh[index][1].segments[0]
        assert np.array_equal(got.token_ids, want.token_ids)
        for key in ("log_probs", "support_ids", "support_log_probs"):
            assert np.array_equal(getattr(got, key), getattr(want, key)), key
        assert got.versions == (VersionSpan(version=UPDATED, start=0, end=len(got.token_ids)),)


def test_oversize_tensors_grow_the_ring(worker: Any, models: tuple[Path, Path]) -> None:
    """Buckets smaller than the largest tensor; the first weights come back and give the first model's samples."""
    before = collect(worker, request(samples=2))
    audit = publish(worker, models[0], Version(incarnation=1, batch=1), bucket_bytes=1)
    assert audit.num_bytes > 100_000
    after = collect(worker, request(samples=2))
    assert not np.array_equal(before[0][1].response_ids, after[0][1].response_ids)


def test_failed_audit_ends_the_worker(fresh_worker: Any, models: tuple[Path, Path]) -> None:
    """The stream is complete, but the probe of another model comes with it."""
    with pytest.raises(WeightSyncError, match="audit_tolerance"):
        publish(fresh_worker, models[0], Version(incarnation=1, batch=1), probe_of=models[1])
    with pytest.raises(WeightSyncError, match="must not serve"):
        collect(fresh_worker, request())
    ray.get(fresh_worker.close.remote(), timeout=60)


def test_corrupt_bucket_ends_the_worker_and_its_requests(
    worker: Any, models: tuple[Path, Path], finished_refs: list[ray.ObjectRef]
) -> None:
    stream = worker.generate.remote(request(samples=4, max_tokens=900))
    assert wait_until(lambda: ray.get(worker.health.remote(), timeout=10)["running"] == 4, 20)
    ray.get(worker.begin_update.remote(Version(incarnation=1, batch=2)), timeout=60)
    bucket = next(make_buckets(named_tensors(models[1]), 10**6))
    flipped = bucket.data.copy()
    flipped[1234] ^= 1
    with pytest.raises(WeightSyncError, match="SHA-256"):
        ray.get(worker.receive_bucket.remote(dataclasses.replace(bucket, data=flipped)), timeout=60)
    health = ray.get(worker.health.remote(), timeout=10)
    assert (health["state"], health["alive"]) == ("broken", False)
    with pytest.raises(WeightSyncError, match="must not serve"):
        ray.get(list(stream)[-1], timeout=60)
    with pytest.raises(WeightSyncError, match="must not serve"):
        collect(worker, request())
    with pytest.raises(WeightSyncError, match="must not serve"):
        ray.get(worker.begin_update.remote(Version(incarnation=1, batch=3)), timeout=60)


def kill_and_check(actor_pid: int, *, is_started: bool) -> None:
    """Kill an actor's process; within 10 s its engine processes, segments and sockets are gone."""
    environments = {child: environment_of(child) for child in descendants(actor_pid)}
    marked = [child for child, environment in environments.items() if "SDPO_ROLLOUT_TOKEN" in environment]
    paths = [environments[child].get("VLLM_RPC_BASE_PATH") for child in marked]
    scratch = {Path(path) for path in paths if path}
    segments = segments_of([actor_pid, *(child.pid for child in marked)] if is_started else [])
    assert segments or not is_started, "a started engine holds a semaphore at least: the test has lost its point"
    assert marked
    assert scratch
    os.kill(actor_pid, signal.SIGKILL)
    assert gone(marked) == [], "engine processes are left"
    assert wait_until(lambda: not any(path.exists() for path in scratch | segments), 5), "files are left"


def test_killed_actor_leaves_nothing_but_its_finished_rollouts(
    worker: Any, started: tuple[Any, EngineInfo], finished_refs: list[ray.ObjectRef]
) -> None:
    """The caller owns what a worker yielded."""
    kill_and_check(ray.get(worker.health.remote(), timeout=10)["pid"], is_started=True)
    assert not any(is_running(pid) for pid in started[1].pids)
    rollouts = ray.get(finished_refs, timeout=30)[1::2]
    assert len(rollouts) == 2
    assert all(len(rollout.response_ids) > 0 for rollout in rollouts)


def test_actor_killed_while_it_starts_leaves_nothing(models: tuple[Path, Path]) -> None:
    worker = RolloutActor.options(num_cpus=0.25).remote(run_config(models[0]), 7)
    start = worker.start.remote()
    pid = ray.get(worker.health.remote(), timeout=60)["pid"]

    def has_engine() -> bool:
        return any(map(is_engine, descendants(pid)))

    if not wait_until(has_engine, 120):
        children = [(child.pid, command_of(child)) for child in descendants(pid)]
        pytest.fail(f"no engine process after 120 s: {children}; {ray.get(start, timeout=10)}")
    kill_and_check(pid, is_started=False)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(start, timeout=60)
