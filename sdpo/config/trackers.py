"""`record.trackers`: experiment trackers that get every row of metrics.jsonl as well, each through its own library."""

from typing import Literal

from pydantic import Field

from sdpo.config.base import Section


class WandbConfig(Section):
    """Weights & Biases. Its key comes from WANDB_API_KEY or `wandb login`, never from the run file."""

    project: str = Field(default="sdpo", min_length=1)
    """Project of the tracked run."""
    entity: str | None = None
    """Team or user that owns the project; none: the one of the key."""
    mode: Literal["online", "offline"] = "online"
    """offline: written to RUN_DIR/wandb only, to be uploaded with `wandb sync`."""


class MlflowConfig(Section):
    """MLflow. Name and password come from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token from
    MLFLOW_TRACKING_TOKEN."""

    tracking_uri: str | None = None
    """A server (http://host:5000), a folder (file:///shared/mlruns) or a database; none: MLFLOW_TRACKING_URI."""
    experiment: str = Field(default="sdpo", min_length=1)
    """Experiment of the tracked run; made if there is none of that name."""


class TrackioConfig(Section):
    """Trackio. Local (TRACKIO_DIR), or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL points."""

    project: str = Field(default="sdpo", min_length=1)
    """Project of the tracked run."""


class TrackersConfig(Section):
    """`record.trackers`: which trackers get the run's metrics; none by default."""

    wandb: WandbConfig | None = None
    """Weights & Biases; needs the extra `wandb`."""
    mlflow: MlflowConfig | None = None
    """MLflow; needs the extra `mlflow`."""
    trackio: TrackioConfig | None = None
    """Trackio; needs the extra `trackio`."""
