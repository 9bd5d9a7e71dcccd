"""`sdpo generate`: sample and judge batches with fixed weights, and record them for a later training run."""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from orchestrator.actors.env_client import EnvClient
from orchestrator.actors.sampling_session import generating
from orchestrator.batch.attempts import Attempts
from orchestrator.cluster.temp_folders import check_folders
from orchestrator.control.stop_signals import stop_signals
from orchestrator.failures import check_dropped_fraction
from orchestrator.group import AttemptRecord, Group
from orchestrator.inputs.inputs import Inputs
from orchestrator.inputs.sandbox_trial import require_sandbox
from orchestrator.memory.deaths import deaths_explained
from orchestrator.memory.run_memory import RunMemory
from orchestrator.recorded.batch_file import batch_file
from orchestrator.recorded.fingerprint import fingerprint
from orchestrator.recorded.manifest import Manifest
from orchestrator.recorded.recording import record_rollouts
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, RunInterrupted
from sdpo.run_layout import STACKS
from sdpo.storage_cache import fetched


def generate(config: RunConfig, folder: Path) -> None:
    """Record batches until `folder` has `config.steps` of them; those that are there already stay as they are.

    Raises `UserError` before anything is started if the input is bad or `folder` holds other batches, and
    `RunInterrupted` after SIGINT, SIGTERM or SIGHUP; batches that are complete stay.
    """
    if not config.samples:
        raise ConfigError(f"rollout.recorded={config.rollout.recorded}: allowed with generate: none")
    alone = config.tasks.model_copy(update={"heldout": None})
    begun = Manifest.read(folder)
    prompt_date = None if begun is None else begun.prompt_date
    inputs = Inputs.load(config.model_copy(update={"tasks": alone}), prompt_date)
    manifest = Manifest.of(config, fingerprint(fetched(config.model.path), inputs.tokenizer), inputs.digests, "fixed")
    check_folders(os.environ)
    require_sandbox(config)
    with _reserved(folder):
        before = Manifest.read(folder)
        if before is not None:
            before.check_continues(manifest, folder)
        else:
            manifest.write(folder)
        missing = [index for index in range(config.steps) if not batch_file(folder, index).is_file()]
        print(f"{folder}: {config.steps - len(missing)} of {config.steps} batches are there", flush=True)
        if missing:
            with deaths_explained(RunMemory.of(config, inputs.longest_prompt)):
                asyncio.run(_generate(config, inputs, folder, missing))


@contextmanager
def _reserved(folder: Path) -> Iterator[None]:
    """Make and lock the folder. Raises `ConfigError` if that fails or another process writes to it."""
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


async def _generate(config: RunConfig, inputs: Inputs, folder: Path, batch_indices: Sequence[int]) -> None:
    main = asyncio.current_task()
    assert main is not None
    for number in stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, main.cancel)
    try:
        async with generating(config, inputs.code_bundle, stacks=folder / STACKS) as workers:
            open_session = partial(EnvClient, workers.envs, config)
            source = Attempts(config, inputs.tokenizer, workers.sampler, open_session)
            for batch_index in batch_indices:
                await _one_batch(config, inputs, source, folder, batch_index)
    except asyncio.CancelledError:
        raise RunInterrupted("stopped; complete batches stay; run it again to continue") from None


async def _one_batch(config: RunConfig, inputs: Inputs, source: Attempts, folder: Path, batch_index: int) -> None:
    started_s, tasks = time.monotonic(), inputs.source.batch(batch_index)
    source.expect([task.id for task in tasks])
    async with asyncio.TaskGroup() as running:
        judging = [running.create_task(source.judged(batch_index, task, {})) for task in tasks]
    groups = [
        Group(batch_index=batch_index, index=i, task=task, attempts=judged.result())
        for i, (task, judged) in enumerate(zip(tasks, judging, strict=True))
    ]
    attempts = [a for group in groups for a in group.attempts]
    errors = [e for a in attempts if (e := a.verdict.infrastructure_error) is not None]
    check_dropped_fraction(len(errors) / len(attempts), config, errors=errors)
    sampled_s = time.monotonic()
    size = await asyncio.to_thread(record_rollouts, folder, groups, config.deadlines.checkpoint_s)
    print(
        f"batch {batch_index + 1}/{config.steps}  {_shown(attempts)}  {size / 2**20:.2f} MiB  "
        f"{sampled_s - started_s:.1f} s sampled, {time.monotonic() - sampled_s:.2f} s written",
        flush=True,
    )


def _shown(attempts: Sequence[AttemptRecord]) -> str:
    judged = [a for a in attempts if not a.is_lost]
    reward = sum(a.reward for a in judged) / max(1, len(judged))
    lost = f", {len(attempts) - len(judged)} lost" if len(judged) < len(attempts) else ""
    return f"{len(attempts)} attempts{lost}  reward {reward:.3f}"
