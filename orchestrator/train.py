"""A whole run: check the input, bring the house up, measure, train, save; go on by itself when the learner died."""

import asyncio
import time
from pathlib import Path

from env_workers.travel import discard_all, sweep
from learner.messages import LearnerInfo
from orchestrator.evaluation import Evaluator
from orchestrator.facts import start_facts
from orchestrator.failures import one_line, root_cause
from orchestrator.fingerprint import fingerprint
from orchestrator.front_desk import Told, front_desk
from orchestrator.house import House
from orchestrator.inputs import Inputs
from orchestrator.job import check_job
from orchestrator.loop import train
from orchestrator.metrics_log import MetricsLog, read_metrics
from orchestrator.pipeline import GroupPipeline
from orchestrator.progress import open_progress
from orchestrator.ray_address import written_address
from orchestrator.ray_session import ray_session
from orchestrator.recorded_manifest import Manifest
from orchestrator.run_books import RunBooks
from orchestrator.run_dir import RunDir
from orchestrator.sources import SampledAttempts
from orchestrator.stacks import dump_stacks
from orchestrator.stop_file import StopFile
from orchestrator.stopping import Stop, Switch, listening
from orchestrator.telemetry_of_house import open_telemetry
from orchestrator.trackers.all import Trackers, open_trackers, tracker_settings
from sdpo.config import RunConfig
from sdpo.errors import DiskFull, LearnerDied, RunInterrupted, StageTimeout
from sdpo.files import is_full
from sdpo.logs import driver_logging
from sdpo.storage_cache import base_name, fetched


def run(config: RunConfig, switch: Switch | None = None) -> Path:
    """Train; returns the run directory. Raises `UserError` before anything is started or written, if input is bad.

    Raises `RunInterrupted` after SIGINT or SIGTERM (on the main thread), after `switch` was asked or after `sdpo stop`,
    with a checkpoint written, and `DiskFull` when the run directory can take no more.
    """
    check_job(config)
    trackers_wanted = tracker_settings(config)
    run_dir = RunDir(config)
    run_dir.check()
    inputs = Inputs.load(config)
    run_dir.check_inputs(inputs.digests)
    try:
        run_dir.open(inputs.digests, start_facts(inputs.facts))
        StopFile(run_dir.path).take()  # asked of a run that is gone
        if config.record.rollouts:
            model = fingerprint(fetched(config.model.path), inputs.tokenizer)
            Manifest.of(config, model, inputs.digests, "trained").write(run_dir.rollouts)
        with (
            driver_logging(run_dir.path / "logs"),
            open_progress(config) as progress,
            open_trackers(config, trackers_wanted, run_dir.path, progress.say) as trackers,
            ray_session(config),
            written_address(run_dir.path),
        ):
            told = Told(config, run_dir.place, progress)
            asyncio.run(_supervise(config, inputs, run_dir, told, trackers, switch))
    except Exception as error:
        if is_full(error):
            raise _disk_full(run_dir) from error
        raise
    finally:
        discard_all()
        sweep()
        run_dir.close()
    return run_dir.path


def _disk_full(run_dir: RunDir) -> DiskFull:
    newest = run_dir.checkpoints.newest()
    kept = (
        "there is no checkpoint yet" if newest is None else f"the newest checkpoint, {base_name(newest[0])}, is whole"
    )
    return DiskFull(f"{run_dir.path}: no space left on the disk; {kept}; make room and run it again to go on")


async def _supervise(
    config: RunConfig, inputs: Inputs, run_dir: RunDir, progress: Told, trackers: Trackers, switch: Switch | None
) -> None:
    """Until the run ends, or somebody asks it to."""
    main = asyncio.current_task()
    assert main is not None
    stop = Stop(asyncio.Event(), main, progress)
    with listening(stop, switch):
        await _run_incarnations(config, inputs, run_dir, stop, progress, trackers)


async def _run_incarnations(
    config: RunConfig, inputs: Inputs, run_dir: RunDir, stop: Stop, progress: Told, trackers: Trackers
) -> None:
    """Run incarnations until one ends well. A dead learner is a resume; anything else ends the run."""
    for restart in range(config.max_learner_restarts + 1):
        try:
            await _run_incarnation(config, inputs, run_dir, stop, progress, trackers)
            return
        except asyncio.CancelledError:
            raise RunInterrupted("stopped at once; run it again to go on from the newest checkpoint") from None
        except BaseExceptionGroup as group:
            error = root_cause(group)
            if not isinstance(error, LearnerDied) or restart == config.max_learner_restarts:
                raise error from group
            progress.say(f"{one_line(error)}; going on from the newest checkpoint")
            progress.status["last_error"] = one_line(error)


async def _run_incarnation(
    config: RunConfig, inputs: Inputs, run_dir: RunDir, stop: Stop, progress: Told, trackers: Trackers
) -> None:
    """From the newest checkpoint, or from the start, to the end, with one set of actors."""
    newest = run_dir.checkpoints.newest()
    checkpoint, steps_done = newest if newest is not None else (None, 0)
    incarnation = run_dir.next_incarnation()
    metrics_log = MetricsLog(
        run_dir.path, resumed_steps=steps_done, tensorboard=config.record.tensorboard, listeners=[trackers.log]
    )
    progress.begin(steps_done, read_metrics(run_dir.path / "metrics.jsonl"))
    started = time.monotonic()
    desk = front_desk(progress, f"{config.name}-{incarnation}", incarnation, stop.ask, StopFile(run_dir.path))
    async with desk, asyncio.TaskGroup() as background:
        house = House(
            config, incarnation, inputs.probe_ids, inputs.luggage, stacks=run_dir.path / "stacks", background=background
        )
        lock = background.create_task(run_dir.watch_lock())
        telemetry = open_telemetry(house, f"{config.name}-{incarnation}", run_dir.path, steps_done)
        try:
            info = await house.start(checkpoint, steps_done)
            progress.say(_who_is_up(house, info, time.monotonic() - started))
            evaluator = Evaluator(
                config, inputs.tokenizer, house.sampler, house.envs, on_judged=lambda _: progress.add("evaluate")
            )
            saved = None if checkpoint is None else steps_done
            books = RunBooks(
                config, run_dir, house, metrics_log, evaluator, inputs.heldout, inputs.tokenizer, saved, progress
            )
            if steps_done == 0:
                await books.before_training()
            source = inputs.recording or SampledAttempts(config, inputs.tokenizer, house.sampler, house.envs, progress)
            pipeline = GroupPipeline(config, inputs.tokenizer, source, house.scorer, progress)
            steps_done = await train(
                house, pipeline, inputs.source, books, incarnation=incarnation, steps_done=steps_done, stop=stop.event
            )
            await books.checkpoint(steps_done)
            await books.export()
        except BaseException as error:
            if isinstance(root_cause(error), LearnerDied):
                telemetry.replaced("learner", root_cause(error))
            if isinstance(root_cause(error), StageTimeout):
                dump_stacks(run_dir.path / "stacks" / f"incarnation-{incarnation}")
            raise
        finally:
            lock.cancel()
            telemetry.close()
            house.close()
            metrics_log.close()
    if stop.event.is_set() and steps_done < config.steps:
        raise RunInterrupted(f"stopped after step {steps_done}; run it again to go on from there")


def _who_is_up(house: House, info: LearnerInfo, seconds: float) -> str:
    counts = ", ".join(f"{len(f.members)} {f.role}" for f in house.fleets if f.members)
    counts += f", {info.world_size} learner"
    return f"{info.num_parameters / 1e6:.2f} M parameters; actors: {counts}; up in {seconds:.0f} s"
