"""A run inside of a job that was submitted to a Ray cluster."""

from pathlib import Path

from sdpo.config import RunConfig
from sdpo.errors import ConfigError

_UNPACKED = "working_dir_files"
"""Ray unpacks a job's working directory below a folder of this name and removes it some time after the job."""


def refuse_a_temporary_dir(config: RunConfig) -> None:
    """Raises `ConfigError` if the run directory would lie in a job's working directory, which does not last."""
    if "://" in config.dir:
        return
    folder = Path(config.dir).resolve()
    if _UNPACKED in folder.parts:
        raise ConfigError(
            f"dir={config.dir}: lies in the job's working directory, which Ray removes; "
            "allowed: an absolute path that lasts, or a URI"
        )
