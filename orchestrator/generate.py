"""`sdpo generate`: sample and judge batches with fixed weights, and record them. The other half is a training run."""

import asyncio
import fcntl
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.failures import refuse_a_broken_world
from orchestrator.fingerprint import fingerprint
from orchestrator.generating import generating
from orchestrator.group import AttemptRecord, Group
from orchestrator.inputs import Inputs
from orchestrator.recorded_format import batch_file
from orchestrator.recorded_manifest import Manifest
from orchestrator.recording import record_rollouts
from orchestrator.sources import AttemptSource, SampledAttempts
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, RunInterrupted
from sdpo.storage_cache import fetched


def generate(config: RunConfig, folder: Path) -> None:
    """Have `config.steps` batches in `folder`; those that are there already stay as they are.

    Raises `UserError` before anything is started if the input is bad or `folder` holds other batches, and
    `RunInterrupted` after SIGINT or SIGTERM: what is complete stays.
    """
    if not config.samples:
        raise ConfigError(f"rollout.recorded={config.rollout.recorded}: allowed with generate: none")
    alone = config.tasks.model_copy(update={"heldout": None})
    inputs = Inputs.load(config.model_copy(update={"tasks": alone}))
    manifest = Manifest.of(config, fingerprint(fetched(config.model.path), inputs.tokenizer), inputs.digests, "fixed")
    with _reserved(folder):
        before = Manifest.read(folder)
        if before is not None:
            before.check_continues(manifest, folder)
        else:
            manifest.write(folder)
        missing = [step for step in range(config.steps) if not batch_file(folder, step).is_file()]
        print(f"{folder}: {config.steps - len(missing)} of {config.steps} batches are there", flush=True)
        if missing:
            asyncio.run(_generate(config, inputs, folder, missing))


@contextmanager
def _reserved(folder: Path) -> Iterator[None]:
    """Raises `ConfigError` for a folder that cannot be made, that is not ours, or that is being written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}; allowed: a folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: is being written by another process; allowed: another folder") from None
        yield


async def _generate(config: RunConfig, inputs: Inputs, folder: Path, steps: Sequence[int]) -> None:
    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, main.cancel)
    try:
        async with generating(config, inputs.luggage, stacks=folder / "stacks") as workers:
            source = SampledAttempts(config, inputs.tokenizer, workers.sampler, workers.envs)
            for step in steps:
                await _one_batch(config, inputs, source, folder, step)
    except asyncio.CancelledError:
        raise RunInterrupted("stopped; the batches that are complete stay; run it again to go on") from None


async def _one_batch(config: RunConfig, inputs: Inputs, source: AttemptSource, folder: Path, step: int) -> None:
    started, tasks = time.monotonic(), inputs.source.batch(step)
    source.expect([task.id for task in tasks])
    async with asyncio.TaskGroup() as running:
        asked = [running.create_task(source.judged(step, task, {})) for task in tasks]
    groups = [
        Group(step=step, index=i, task=task, attempts=found.result())
        for i, (task, found) in enumerate(zip(tasks, asked, strict=True))
    ]
    attempts = [a for group in groups for a in group.attempts]
    errors = [e for a in attempts if (e := a.verdict.infrastructure_error) is not None]
    refuse_a_broken_world(len(errors) / len(attempts), config, errors=errors)
    sampled = time.monotonic()
    size = await asyncio.to_thread(record_rollouts, folder, groups, config.deadlines.checkpoint_s)
    print(
        f"batch {step + 1}/{config.steps}  {_shown(attempts)}  {size / 2**20:.2f} MiB  "
        f"{sampled - started:.1f} s sampled, {time.monotonic() - sampled:.2f} s written",
        flush=True,
    )


def _shown(attempts: Sequence[AttemptRecord]) -> str:
    judged = [a.verdict for a in attempts if a.verdict.infrastructure_error is None]
    reward = sum(v.reward or 0.0 for v in judged) / max(1, len(judged))
    lost = f", {len(attempts) - len(judged)} lost" if len(judged) < len(attempts) else ""
    return f"{len(attempts)} attempts{lost}  reward {reward:.3f}"
