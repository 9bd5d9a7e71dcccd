"""A whole run: checks the input, starts the actors, measures the base model, trains (`loop.py`), saves and exports.

A run is a sequence of incarnations, each with its own set of actors. When the learner dies, the next incarnation goes
on from the newest checkpoint.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from env_workers.code_bundle import discard_all, sweep
from learner.messages import LearnerInfo
from orchestrator.actors.env_client import EnvClient
from orchestrator.actors.run_actors import RunActors
from orchestrator.actors.telemetry import open_telemetry
from orchestrator.batch.attempts import Attempts
from orchestrator.batch.evaluator import Evaluator
from orchestrator.batch.pipeline import GroupPipeline
from orchestrator.cluster.job import check_job
from orchestrator.cluster.namespace import run_namespace
from orchestrator.cluster.ray_address import written_address
from orchestrator.cluster.ray_session import ray_session
from orchestrator.cluster.temp_folders import check_folders
from orchestrator.control.control_client import control_client
from orchestrator.control.stop_file import StopFile
from orchestrator.control.stop_signals import Stop, StopHandle, stoppable
from orchestrator.events import ActorReplaced, IncarnationBegan, Message, emit, listening
from orchestrator.failures import one_line, root_cause
from orchestrator.inputs.inputs import Inputs
from orchestrator.inputs.sandbox_trial import require_sandbox
from orchestrator.loop import train
from orchestrator.memory.check import check_cluster, check_machine
from orchestrator.memory.deaths import deaths_explained
from orchestrator.memory.run_memory import RunMemory
from orchestrator.progress.progress import open_progress
from orchestrator.recorded.fingerprint import fingerprint, model_digests
from orchestrator.recorded.manifest import Manifest
from orchestrator.recorder import RunRecorder
from orchestrator.run_dir.alarm_log import AlarmLog
from orchestrator.run_dir.facts import start_facts
from orchestrator.run_dir.metrics_log import MetricsLog, read_metrics
from orchestrator.run_dir.run_dir import RunDir
from orchestrator.telemetry.run_telemetry import Telemetry
from orchestrator.telemetry.stacks import dump_stacks
from orchestrator.trackers.all import open_trackers, tracker_settings
from sdpo.config import RunConfig
from sdpo.errors import DiskFull, LearnerDied, RunInterrupted, StageTimeout
from sdpo.files import is_full
from sdpo.logs import driver_logging
from sdpo.run_layout import LOGS, METRICS, STACKS
from sdpo.storage import base_name
from sdpo.storage_cache import fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What all incarnations of a run share."""

    config: RunConfig
    inputs: Inputs
    run_dir: RunDir
    stop: Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """One incarnation, counted from 1. `checkpoint` is where it starts from, after `steps_done` steps; None at 0."""

    number: int
    checkpoint: Path | str | None
    steps_done: int


def run(config: RunConfig, stop_handle: StopHandle | None = None) -> Path:
    """Train; return the run directory. Raises `UserError` before anything is started or written if input is bad.

    Raises `RunInterrupted` after SIGINT, SIGTERM or SIGHUP (on the main thread), after `stop_handle` was asked or after
    `sdpo stop`, with a checkpoint written, and `DiskFull` when the disk of the run directory is full.
    """
    check_job(config)
    check_folders(os.environ)
    trackers = tracker_settings(config)
    run_dir = RunDir(config)
    run_dir.check()
    inputs = Inputs.load(config, run_dir.prompt_date())
    digests = inputs.digests | model_digests(fetched(config.model.path))
    run_dir.check_inputs(digests)
    memory = RunMemory.of(config, inputs.longest_prompt)
    require_sandbox(config)
    check_machine(memory)  # last, because it may print a warning, and what is refused is one line
    try:
        run_dir.open(digests, start_facts(inputs.facts))
        StopFile(run_dir.path).take()  # a request that a run before this one did not see
        if config.record.rollouts:
            model = fingerprint(fetched(config.model.path), inputs.tokenizer)
            Manifest.of(config, model, inputs.digests, "trained").write(run_dir.rollouts)
        with (
            deaths_explained(memory),
            driver_logging(run_dir.path / LOGS),
            open_progress(config),
            open_trackers(config, trackers, run_dir.path),
            ray_session(config),
            written_address(run_dir.path),
        ):
            check_cluster(memory)
            asyncio.run(_run_incarnations(config, inputs, run_dir, stop_handle))
    except Exception as error:
        if is_full(error):
            raise _disk_full(run_dir) from error
        raise
    finally:
        discard_all()
        sweep()
        run_dir.close()
    return run_dir.path


async def _run_incarnations(config: RunConfig, inputs: Inputs, run_dir: RunDir, stop_handle: StopHandle | None) -> None:
    """Run incarnations until one completes. A dead learner starts the next one; any other error ends the run."""
    main = asyncio.current_task()
    assert main is not None
    this_run = Run(config=config, inputs=inputs, run_dir=run_dir, stop=Stop(asyncio.Event(), main))
    with stoppable(this_run.stop, stop_handle):
        for restart in range(config.max_learner_restarts + 1):
            try:
                return await _run_incarnation(this_run)
            except asyncio.CancelledError:
                raise RunInterrupted("stopped at once; run it again to go on from the newest checkpoint") from None
            except BaseExceptionGroup as group:
                error = root_cause(group)
                if not isinstance(error, LearnerDied) or restart == config.max_learner_restarts:
                    raise error from group
                emit(Message(text=f"{one_line(error)}; going on from the newest checkpoint"))


async def _run_incarnation(run: Run) -> None:
    """Train with one set of actors, from the newest checkpoint to the end. Raises `RunInterrupted` if stopped."""
    config, run_dir = run.config, run.run_dir
    checkpoint, steps_done = run_dir.checkpoints.newest() or (None, 0)
    incarnation = Incarnation(number=run_dir.next_incarnation(), checkpoint=checkpoint, steps_done=steps_done)
    namespace = run_namespace(config.name, incarnation.number)
    metrics_log = MetricsLog(run_dir.path, resumed_steps=steps_done, tensorboard=config.record.tensorboard)
    alarm_log = AlarmLog(config.health, run_dir.path)
    emit(IncarnationBegan(steps_done=steps_done, records=read_metrics(run_dir.path / METRICS)))
    client = control_client(namespace, run.stop.ask, StopFile(run_dir.path))
    async with client, asyncio.TaskGroup() as background:
        actors = RunActors(
            config,
            incarnation.number,
            run.inputs.probe_ids,
            run.inputs.code_bundle,
            stacks=run_dir.path / STACKS,
            background=background,
        )
        lock = background.create_task(run_dir.watch_lock())
        telemetry = open_telemetry(actors, namespace, run_dir.path, steps_done)
        with (
            closing(metrics_log),
            closing(actors),
            closing(telemetry),
            listening(metrics_log.hear, alarm_log.hear, telemetry.hear),
            _reported_failure(run_dir.path / STACKS / f"incarnation-{incarnation.number}"),
        ):
            steps_done = await _train(run, incarnation, actors, alarm_log, telemetry)
        lock.cancel()
    if run.stop.event.is_set() and steps_done < config.steps:
        raise RunInterrupted(f"stopped after step {steps_done}; run it again to go on from there")


async def _train(
    run: Run, incarnation: Incarnation, actors: RunActors, alarm_log: AlarmLog, telemetry: Telemetry
) -> int:
    """Start the actors, measure the base model, train, save and export; return the number of steps done."""
    config, inputs, steps_done = run.config, run.inputs, incarnation.steps_done
    started_s = time.monotonic()
    info = await actors.start(incarnation.checkpoint, steps_done)
    emit(Message(text=_started(actors, info, time.monotonic() - started_s)))
    attempts = Attempts(config, inputs.tokenizer, actors.sampler, partial(EnvClient, actors.envs, config))
    evaluator = Evaluator(config, inputs.tokenizer, attempts)
    saved_steps = None if incarnation.checkpoint is None else steps_done
    recorder = RunRecorder(
        config, run.run_dir, actors, alarm_log, telemetry, evaluator, inputs.heldout, inputs.tokenizer, saved_steps
    )
    if steps_done == 0:
        await recorder.before_training()
    steps_done = await train(
        actors,
        GroupPipeline(config, inputs.tokenizer, inputs.recording or attempts, actors.scorer),
        inputs.source,
        recorder,
        incarnation=incarnation.number,
        steps_done=steps_done,
        stop=run.stop.event,
    )
    await recorder.checkpoint(steps_done)
    await recorder.export()
    return steps_done


@contextmanager
def _reported_failure(stacks: Path) -> Iterator[None]:
    """Count a learner that died in the block, and write the stacks of all actors when a deadline passed in it."""
    try:
        yield
    except BaseException as error:
        cause = root_cause(error)
        if isinstance(cause, LearnerDied):
            emit(ActorReplaced(role="learner", error=cause))
        if isinstance(cause, StageTimeout):
            dump_stacks(stacks)
        raise


def _started(actors: RunActors, info: LearnerInfo, seconds: float) -> str:
    counts = ", ".join(f"{len(fleet.members)} {fleet.role}" for fleet in actors.fleets if fleet.members)
    counts += f", {info.world_size} learner"
    return f"{info.num_parameters / 1e6:.2f} M parameters; actors: {counts}; up in {seconds:.0f} s"


def _disk_full(run_dir: RunDir) -> DiskFull:
    newest = run_dir.checkpoints.newest()
    state = (
        "there is no checkpoint yet" if newest is None else f"the newest checkpoint, {base_name(newest[0])}, is whole"
    )
    return DiskFull(f"{run_dir.path}: no space left on the disk; {state}; free some space and run it again to go on")
