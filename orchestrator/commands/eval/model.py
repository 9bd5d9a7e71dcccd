"""The model that is evaluated: a model folder, or the model or a checkpoint of a run directory."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.run_dir.remote_dir import reading_copy
from orchestrator.run_dir.run_view import RunView
from sdpo.errors import ConfigError
from sdpo.run_layout import CONFIG, MODEL, MODEL_MARK
from sdpo.storage import Store
from sdpo.storage_cache import fetched


def is_run_dir(path: Path) -> bool:
    """Return whether the folder has a run's config and not a model's."""
    return (path / CONFIG).is_file() and not (path / MODEL_MARK).is_file()


def local_model(location: Path | str) -> Path:
    """Return a local path of a model or a run directory: a path itself, of a URI a copy.

    Raises `StorageError` or `TransferError`.
    """
    return reading_copy(location) if Store(location).exists(CONFIG) else fetched(location)


@contextmanager
def model_folder(path: Path, step: int | None, best: bool) -> Iterator[Path]:
    """Yield `path` itself, a run directory's exported model, or a temporary model that is made of a checkpoint.

    Raises `ConfigError`, and the errors of `orchestrator.commands.export.export.export`.
    """
    if not is_run_dir(path):
        if best or step is not None:
            raise ConfigError(f"MODEL={path}: not a run directory; allowed with --step and --best: a run directory")
        yield path
    elif best or step is not None:
        from orchestrator.commands.export.export import ExportRequest, export

        with tempfile.TemporaryDirectory(prefix="sdpo-eval-") as scratch:
            folder = Path(scratch) / MODEL
            export(RunView(path), ExportRequest(out=folder, step=step, best=best))
            yield folder
    elif (model := RunView(path).model_location) is not None:
        yield fetched(model)
    else:
        raise ConfigError(f"MODEL={path}: holds no exported model yet; allowed: --step N or --best, of its checkpoints")
