"""Runs from Python, for notebooks and sweeps: build a config, train, judge, read the result. See docs/python.md."""

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from orchestrator.control.stop_signals import StopHandle, signals_to
from orchestrator.run_dir.run_view import RunView
from sdpo.config import RunConfig
from sdpo.config.load import make_run_config, read_run_file
from sdpo.errors import ConfigError
from sdpo.show import show
from sdpo.storage_cache import fetched
from sdpo.types import Task, Verdict

__all__ = ["RunConfig", "RunResult", "compare", "configure", "judge", "judge_many", "open_run", "train"]

_LOOK_EVERY_S = 0.2
_COMPARED = ("pass@1", "reward")
_ONE_RUN = threading.Lock()


class RunResult(RunView):
    """The result of a run: `RunView`'s metrics, alarms, series and samples, and the measurements before and after."""

    def __repr__(self) -> str:
        """Return the run's name, its newest step, held-out pass@1 before and after, and whether it is complete."""
        step = self.metrics[-1]["step"] if self.metrics else 0
        ends = [found.get("pass@1") for found in (self.before, self.after)]
        heldout = "" if None in ends else f", held-out pass@1 {ends[0]:.3f} -> {ends[1]:.3f}"
        state = "complete" if self.model_location else "not complete"
        return f"<RunResult {self.location}: step {step} of {self.config.steps}{heldout}, {state}>"

    @property
    def before(self) -> dict[str, float]:
        """The held-out metrics before training, by name without `heldout/` (pass@1, reward, …); {} without any."""
        return self._heldout(0)

    @property
    def after(self) -> dict[str, float]:
        """The held-out metrics of the last time that they were measured, as `before`."""
        return self._heldout(-1)

    @property
    def model(self) -> Path | None:
        """The folder of the trained model in Hugging Face form, at a URI a copy; None while the run is not complete."""
        location = self.model_location
        return None if location is None else fetched(location)

    def report(self, out: str | PathLike[str] | None = None) -> Path:
        """Write the report page (by default report.html in the run directory); returns its path."""
        from orchestrator.commands.report.write import write_report

        return write_report([self.location], None if out is None else Path(out))[0]

    def _heldout(self, index: int) -> dict[str, float]:
        measured = [record for record in self.metrics if "heldout/pass@1" in record]
        chosen = measured[index] if measured else {}
        return {key.removeprefix("heldout/"): v for key, v in chosen.items() if key.startswith("heldout/")}


def configure(
    source: str | PathLike[str] | Mapping[str, Any] | RunConfig = "",
    changes: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> RunConfig:
    """Return a checked run config, made of `source` and the changes.

    `source` is a run file, a mapping with the content of one, another config, or empty for the defaults. `changes` are
    dotted keys with their values; keywords are the same with `__` for dots. Raises `ConfigError`.
    """
    named = {name.replace("__", "."): value for name, value in keywords.items()}
    wanted = {name: _plain(value) for name, value in {**(changes or {}), **named}.items()}
    if isinstance(source, RunConfig):
        source = source.model_dump(mode="json")
    elif isinstance(source, str | PathLike):
        source = read_run_file(Path(source).expanduser()) if source else {}
    elif not isinstance(source, Mapping):
        allowed = "the path of a run file, a mapping, or a RunConfig"
        raise ConfigError(f"source={show(source)} ({type(source).__name__}): allowed: {allowed}")
    return make_run_config({name: _plain(value) for name, value in source.items()}, wanted)


def train(config: RunConfig) -> RunResult:
    """Train as `sdpo train` does, and continue a run that was stopped; return its result.

    It works in scripts, in threads, and where an event loop is running (notebooks). Ctrl-C, or the notebook's stop
    button, ends the run after the current step with a checkpoint and `RunInterrupted`; pressed twice it ends at once.
    In a thread of your own nothing interrupts it. A process has one run at a time. Raises the errors of `sdpo.errors`
    that the command line would print; never exits the process.
    """
    from orchestrator.train import run

    _require_config(config)
    if not _ONE_RUN.acquire(blocking=False):
        raise ConfigError("this process is running another run; allowed: one after another, or a process for each")
    try:
        _refuse_foreign_ray()
        return RunResult(_beside_the_loop(config) if _loop_is_running() else run(config))
    finally:
        _ONE_RUN.release()


def judge(config: RunConfig, task: str | Task, answer: str | Sequence[str]) -> Verdict:
    """Return the verdict on one answer; several answers are judged faster by one call of `judge_many`."""
    return judge_many(config, [(task, answer)])[0]


def judge_many(config: RunConfig, answers: Iterable[tuple[str | Task, str | Sequence[str]]]) -> list[Verdict]:
    """Return the verdicts on pairs of a task and an answer, in order, as a run would give them. No engine, no Ray.

    A task is the id of one of the run's training or held-out tasks, or a `Task`; an answer is a text, or a list of
    texts, one a turn. `env.sandboxes_per_worker` answers are judged at the same time. A sandbox that broke is a verdict
    with `infrastructure_error` and without a reward. Raises `UserError`, and `EnvironmentFault` for a judge that fails.
    """
    from orchestrator.commands.preview.many import judge_pairs

    _require_config(config)
    return judge_pairs(config, answers)


def open_run(path: str | PathLike[str]) -> RunResult:
    """Return the result of a run by its path or URI, while it runs or after it.

    Raises `ConfigError` if there is no run directory.
    """
    return RunResult(fspath(path))


def compare(results: Iterable[RunView]) -> list[dict[str, Any]]:
    """Return a row for each run: name, step, alarms, held-out `pass@1` and `reward` before and after, seed, and every
    setting in which the runs differ, by its dotted key. `pandas.DataFrame(compare(results))` is a table.

    None stands for what a run does not have.
    """
    from orchestrator.commands.report.data import differing_settings

    views = [RunResult(view.location) for view in results]
    differing = differing_settings(views)
    return [
        {
            "name": view.name,
            "step": view.metrics[-1]["step"] if view.metrics else 0,
            "alarms": len(view.alarms),
            **{f"{name} {when}": found.get(name) for name in _COMPARED for when, found in _ends(view)},
            "seed": view.config.seed,
            **{key: values[index] for key, values in differing.items()},
        }
        for index, view in enumerate(views)
    ]


def _ends(view: RunResult) -> tuple[tuple[str, dict[str, float]], ...]:
    return ("before", view.before), ("after", view.after)


def _require_config(config: Any) -> None:
    if not isinstance(config, RunConfig):
        raise ConfigError(f"config={show(config)} ({type(config).__name__}): allowed: a RunConfig, made by configure()")


def _beside_the_loop(config: RunConfig) -> Path:
    """Train in another thread, because this thread's event loop is running; signals to this one stop the run."""
    from orchestrator.train import run

    stop_handle = StopHandle()
    with signals_to(stop_handle), ThreadPoolExecutor(1, thread_name_prefix="sdpo-run") as pool:
        running = pool.submit(run, config, stop_handle)
        while not running.done():
            wait([running], timeout=_LOOK_EVERY_S)
        return running.result()


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _refuse_foreign_ray() -> None:
    import ray

    if ray.is_initialized():
        raise ConfigError("this process is already connected to Ray; allowed: ray.shutdown() before a run")


def _plain(value: Any) -> Any:
    return fspath(value) if isinstance(value, PathLike) else value
