"""A run inside of a job that was submitted to a Ray cluster."""

import json
import logging
import os
from pathlib import Path

from sdpo.config import RunConfig
from sdpo.errors import ConfigError
from sdpo.secrets import is_secret_name

log = logging.getLogger(__name__)

_UNPACKED = "working_dir_files"
"""Ray unpacks a job's working directory below a folder of this name and removes it some time after the job."""
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable with which Ray tells a job's driver its runtime environment."""


def check_job(config: RunConfig) -> None:
    """Raises `ConfigError` if the run directory would lie in a job's working directory, which does not last.

    Warns of secrets among the variables of the job's runtime environment: Ray writes them into its logs.
    """
    folder = Path(config.dir).resolve()
    if "://" not in config.dir and _UNPACKED in folder.parts:
        raise ConfigError(
            f"dir={config.dir}: lies in the job's working directory, which Ray removes; "
            "allowed: an absolute path that lasts, or a URI"
        )
    job = json.loads(os.environ.get(_JOB_CONFIG) or "{}")
    shown = [name for name in (job.get("runtime_env") or {}).get("env_vars") or {} if is_secret_name(name)]
    if shown:
        log.warning(
            "%s: given through the job's runtime environment, so readable in the cluster's logs and through its API; "
            "better in the environment of `ray start` on the nodes",
            ", ".join(sorted(shown)),
        )
