"""Learner ranks in a few processes that stay, and what tests ask of them."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from learner.batch import ScoringItem, make_batch
from learner.experiences import join
from learner.scoring import ScoreRequest
from sdpo.config import RunConfig
from tests.learner_fixtures import ObservedRank, masters, random_experiences, train_calls

DEADLINE_S = 120
PATIENCE_S = 10
"""For the other ranks after one has failed."""
ALONE = 1
"""A budget that gives every sequence its own micro-batch, so that only the order of sums differs between gangs."""
Arrays = dict[str, np.ndarray[Any, Any]]
Job = Callable[..., Any]


class Gangs:
    """`call` runs a job on every rank of a new gang, returns rank 0's answer, and raises what the first rank raised.

    A process is the same rank of all gangs of one size: DeepSpeed counts modules and parameters as it makes them, and
    torch remembers by equal meshes what a rank's shards are.
    """

    def __init__(self) -> None:
        self._processes: dict[tuple[int, int], ProcessPoolExecutor] = {}

    def call(self, job: Job, config: RunConfig, *arguments: Any, checkpoint: str | None = None) -> Any:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        members = [(config.placement.learner.ranks, rank) for rank in range(config.placement.learner.ranks)]
        calls = []
        for member in members:
            if member not in self._processes:
                context = get_context("spawn")
                self._processes[member] = ProcessPoolExecutor(1, mp_context=context, initializer=_quiet)
            process = self._processes[member]
            calls.append(process.submit(_on_rank, job, config, member[1], port, checkpoint, arguments))
        _, waiting = wait(calls, DEADLINE_S, FIRST_EXCEPTION)
        if waiting:
            _, waiting = wait(calls, PATIENCE_S)
        errors = [error for call in calls if call.done() and (error := call.exception()) is not None]
        if waiting:
            for member in members:
                self._end(self._processes.pop(member))
        if errors:
            raise errors[0]
        if waiting:
            raise TimeoutError(f"{job.__name__}: {len(waiting)} ranks did not answer within {DEADLINE_S} s")
        return calls[0].result()

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            self._end(process)

    @staticmethod
    def _end(pool: ProcessPoolExecutor) -> None:
        """Also processes that wait for a rank that failed."""
        processes = list(pool._processes.values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
            process.join(DEADLINE_S)


def _quiet() -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def _on_rank(
    job: Job, config: RunConfig, rank: int, port: int, checkpoint: str | None, arguments: tuple[Any, ...]
) -> Any:
    learner = ObservedRank(config, rank, config.placement.learner.ranks)
    try:
        learner.setup("127.0.0.1", port, checkpoint)
        return job(learner, config, *arguments)
    finally:
        learner.close()


def train(learner: ObservedRank, config: RunConfig, steps: range) -> list[dict[str, float]]:
    """A step of four attempts, then one of two, and so on: the number of micro-batches changes."""
    metrics = []
    for step in steps:
        calls = train_calls(random_experiences(2 if step % 2 else 4, seed=step), config.placement.learner.ranks, ALONE)
        measured = learner.train(*calls[learner._rank])
        learner.update_teacher()
        metrics.append({key: value for key, value in measured.items() if key != "seconds"})
    return metrics


def trajectory(learner: ObservedRank, config: RunConfig, steps: range) -> tuple[list[dict[str, float]], Arrays, Arrays]:
    """(metrics of each step, gradients of the first, whole float32 weights and average after the last)."""
    metrics = train(learner, config, steps)
    gradients = {name: gradient.numpy() for name, gradient in learner._gradients[0].items()}
    return metrics, gradients, weights(learner, config)


def weights(learner: ObservedRank, config: RunConfig) -> Arrays:
    """Whole float32 weights, and the average under `ema.`."""
    found = {name: tensor.numpy() for name, tensor in masters(learner).items()}
    assert {name: array.shape for name, array in found.items()} == learner._backend.tensor_shapes()
    average = learner._backend.full_tensors(torch.float32, learner._average)
    return found | {f"ema.{name}": tensor.clone().numpy() for name, tensor in average}


def save_then_train(
    learner: ObservedRank, config: RunConfig, folder: str
) -> tuple[list[dict[str, float]], Arrays, Arrays]:
    """Two steps, a checkpoint, two steps; the weights at the end and in the checkpoint."""
    train(learner, config, range(2))
    learner.save(folder)
    saved = {name: array.copy() for name, array in weights(learner, config).items()}
    return train(learner, config, range(2, 4)), weights(learner, config), saved


def go_on(learner: ObservedRank, config: RunConfig) -> tuple[list[dict[str, float]], Arrays]:
    """The last two steps of `save_then_train`, of a learner that began with its checkpoint."""
    assert learner._backend.optimizer_step == 2
    return train(learner, config, range(2, 4)), weights(learner, config)


def nothing(learner: ObservedRank, config: RunConfig) -> None:
    """For what happens in `setup`."""


def score(learner: ObservedRank, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Log-probs of ids[1:] given their prefixes."""
    keep = np.ones(len(ids) - 1, np.bool_)
    item = ScoringItem(context_ids=ids[:1], response_ids=ids[1:], keep=keep, support_ids=None)
    with torch.no_grad():
        request = ScoreRequest(batch=make_batch([item], learner._device), temperature=1.0, support=None)
        scored = learner._backend.forward(request)
    return scored.log_probs.sampled.numpy().copy()


def swap(learner: ObservedRank, config: RunConfig, ids: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Log-probs before, inside and after a swap with the average, and the weights before and after."""
    train(learner, config, range(2))
    average = learner._average
    assert average is not None
    before, first = weights(learner, config), score(learner, ids)
    with learner._backend.swapped_in(average):
        inside = score(learner, ids)
    return {"scores": (first, inside, score(learner, ids)), "weights": (before, weights(learner, config))}


def adapters(learner: ObservedRank, config: RunConfig, ids: np.ndarray[Any, Any], folder: str) -> dict[str, Any]:
    """Two steps with adapters, then an export of the merged policy."""
    before = weights(learner, config)
    train(learner, config, range(2))
    learner.export(folder)
    return {
        "masters": sorted(learner._backend.masters),
        "gradients": sorted(learner._gradients[0]),
        "scores": score(learner, ids),
        "weights": (before, weights(learner, config)),
    }


def not_stepped(learner: ObservedRank, config: RunConfig) -> list[Any]:
    """A step after gradients were discarded and after some that were not finite, and the weights around them."""
    calls = train_calls(random_experiences(4, seed=1), config.placement.learner.ranks, ALONE)[learner._rank]
    backend, trainer = learner._backend, learner._trainer
    start = weights(learner, config)
    update = backend.update
    backend.update = lambda learning_rate: (backend.discard(), (0.0, False))[1]  # type: ignore[method-assign,func-returns-value]
    discarded = trainer.train(*_joined(calls))
    backend.update = update  # type: ignore[method-assign]
    backward = backend.backward
    backend.backward = lambda loss: backward(loss * float("nan"))  # type: ignore[method-assign]
    broken = trainer.train(*_joined(calls))
    backend.backward = backward  # type: ignore[method-assign]
    unmoved = weights(learner, config)
    good = trainer.train(*_joined(calls))
    return [discarded, broken, good, start, unmoved, weights(learner, config)]


def first_step(learner: ObservedRank, config: RunConfig) -> dict[str, float]:
    """The step that `not_stepped` takes in the end."""
    calls = train_calls(random_experiences(4, seed=1), config.placement.learner.ranks, ALONE)[learner._rank]
    return learner._trainer.train(*_joined(calls))


def _joined(calls: list[Any]) -> tuple[Any, Any]:
    return join(calls[0], calls[1:]), calls[0].mini_batches
