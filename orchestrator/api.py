"""Runs from Python, for notebooks and sweeps: build a config, train, read the result. See docs/python.md."""

import asyncio
import threading
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from orchestrator.run_view import RunView
from orchestrator.stopping import Switch, signals_to
from sdpo.config import RunConfig
from sdpo.config.load import make_run_config, read_run_file
from sdpo.errors import ConfigError
from sdpo.storage_cache import fetched

__all__ = ["RunConfig", "RunResult", "configure", "open_run", "train"]

_LOOK_EVERY_S = 0.2
_ONE_RUN = threading.Lock()


class RunResult(RunView):
    """What a run left: `RunView`'s metrics, alarms, series and samples, and how it began and ended."""

    @property
    def before(self) -> dict[str, float]:
        """The held-out metrics before training, by name without `heldout/` (pass@1, pass@1_low, …); {} without any."""
        return self._heldout(0)

    @property
    def after(self) -> dict[str, float]:
        """The same, of the last time that they were measured."""
        return self._heldout(-1)

    @property
    def model(self) -> Path | None:
        """The trained model's folder, in Hugging Face form, of a URI a copy; None while the run is not complete."""
        place = self.model_place
        return None if place is None else fetched(place)

    def report(self, out: str | PathLike[str] | None = None) -> Path:
        """Write the report page (by default report.html in the run directory); returns its path."""
        from orchestrator.report.write import write_report

        return write_report([self.place], None if out is None else Path(out))[0]

    def _heldout(self, index: int) -> dict[str, float]:
        measured = [record for record in self.metrics if "heldout/pass@1" in record]
        chosen = measured[index] if measured else {}
        return {key.removeprefix("heldout/"): v for key, v in chosen.items() if key.startswith("heldout/")}


def configure(
    source: str | PathLike[str] | Mapping[str, Any] | RunConfig = "",
    changes: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> RunConfig:
    """A checked run config: a run file, a mapping as one holds it, another config, or (by default) the defaults.

    `changes` are dotted keys with their values; keywords are the same with `__` for dots. Raises `ConfigError`.
    """
    named = {name.replace("__", "."): value for name, value in keywords.items()}
    wanted = {name: _plain(value) for name, value in {**(changes or {}), **named}.items()}
    if isinstance(source, RunConfig):
        source = source.model_dump(mode="json")
    elif not isinstance(source, Mapping):
        source = read_run_file(Path(source)) if source else {}
    return make_run_config({name: _plain(value) for name, value in source.items()}, wanted)


def train(config: RunConfig) -> RunResult:
    """Train as `sdpo train` does, and go on with a run that was stopped; returns what the run left.

    Works in scripts, in threads, and where an event loop is running (notebooks). Ctrl-C, or the notebook's stop
    button, ends the run after the step that is going on: `RunInterrupted`, with a checkpoint; twice ends it at once.
    In a thread of your own nothing interrupts it. One run at a time in a process. Raises the errors of `sdpo.errors`
    that the command line would print; never exits the process.
    """
    from orchestrator.train import run

    if not _ONE_RUN.acquire(blocking=False):
        raise ConfigError("this process has a run going on; allowed: one after another, or a process for each")
    try:
        _refuse_foreign_ray()
        return RunResult(_beside_the_loop(config) if _loop_is_running() else run(config))
    finally:
        _ONE_RUN.release()


def open_run(path: str | PathLike[str]) -> RunResult:
    """The result of a run, while it goes or after it, by its path or URI.

    Raises `ConfigError` if there is no run directory.
    """
    return RunResult(fspath(path))


def _beside_the_loop(config: RunConfig) -> Path:
    """Train in a thread of its own, because this one's event loop is running; signals here stop the run."""
    from orchestrator.train import run

    switch, ended = Switch(), dict[str, Any]()

    def work() -> None:
        try:
            ended["path"] = run(config, switch)
        except BaseException as error:
            ended["error"] = error

    thread = threading.Thread(target=work, name="sdpo-run", daemon=True)
    with signals_to(switch):
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_EVERY_S)
    if "error" in ended:
        raise ended["error"]
    path: Path = ended["path"]
    return path


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
