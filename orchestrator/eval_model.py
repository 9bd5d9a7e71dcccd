"""The model that is evaluated: a folder, or what a run directory holds."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.remote_dir import reading_copy
from orchestrator.run_view import RunView
from sdpo.errors import ConfigError
from sdpo.storage import Store, is_uri
from sdpo.storage_cache import fetched


def is_run_dir(path: Path) -> bool:
    """A run directory holds the run's config, a model its own."""
    return (path / "config.yaml").is_file() and not (path / "config.json").is_file()


def local_model(place: Path | str) -> Path:
    """A path is itself; of a URI, a model or a run directory, the local copy.

    Raises `StorageError` or `TransferError`.
    """
    if not is_uri(place):
        return Path(place)
    store = Store(str(place))
    return reading_copy(store.place) if store.exists("config.yaml") else fetched(store.place)


@contextmanager
def model_folder(path: Path, step: int | None, best: bool) -> Iterator[Path]:
    """`path` itself, the exported model of a run directory, or one that is exported of a checkpoint for the time being.

    Raises `ConfigError`, or as `orchestrator.export.export`.
    """
    if not is_run_dir(path):
        if best or step is not None:
            raise ConfigError(f"MODEL={path}: is no run directory; allowed with --step and --best: a run directory")
        yield path
    elif best or step is not None:
        from orchestrator.export import ExportRequest, export

        with tempfile.TemporaryDirectory(prefix="sdpo-eval-") as scratch:
            folder = Path(scratch) / "model"
            export(RunView(path), ExportRequest(out=folder, step=step, best=best))
            yield folder
    elif (model := RunView(path).model_place) is not None:
        yield fetched(model)
    else:
        raise ConfigError(f"MODEL={path}: holds no exported model yet; allowed: --step N or --best, of its checkpoints")
