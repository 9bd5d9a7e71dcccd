"""Checks for a run that is a job submitted to a Ray cluster."""

import json
import logging
import os
from pathlib import Path

from sdpo.config import RunConfig
from sdpo.errors import ConfigError
from sdpo.secrets import is_secret_name

log = logging.getLogger(__name__)

_UNPACKED = "working_dir_files"
"""Ray unpacks a job's working directory below a folder of this name and removes it after the job."""
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable in which Ray passes a job's runtime environment to its driver."""


def check_job(config: RunConfig) -> None:
    """Raise `ConfigError` if the run directory would be inside the job's working directory, which Ray removes.

    Log a warning for secrets among the variables of the job's runtime environment: Ray writes them into its logs.
    """
    folder = Path(config.dir).resolve()
    if "://" not in config.dir and _UNPACKED in folder.parts:
        raise ConfigError(
            f"dir={config.dir}: is in the job's working directory, which Ray removes; "
            "allowed: an absolute path outside of it, or a URI"
        )
    job = json.loads(os.environ.get(_JOB_CONFIG) or "{}")
    shown = [name for name in (job.get("runtime_env") or {}).get("env_vars") or {} if is_secret_name(name)]
    if shown:
        log.warning(
            "%s: set in the job's runtime environment, so readable in the cluster's logs and through its API; "
            "set it in the environment of `ray start` on the nodes instead",
            ", ".join(sorted(shown)),
        )
