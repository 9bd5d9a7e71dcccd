"""`record.trackers`: experiment trackers that get every row of metrics.jsonl as well, each through its own library.

A tracker is a section here and a module `orchestrator/trackers/to_<key>.py` with a class `RunTracker`; its key in
`TrackersConfig` is the package that it imports.
"""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from sdpo.section import IsPath, Section


class TrackerConfig(Section):
    """Settings of one tracker."""

    extra: ClassVar[str | None] = None
    """The extra of this project that installs the tracker's package; None where it has none."""


class WandbConfig(TrackerConfig):
    """Weights & Biases. Its key comes from WANDB_API_KEY or `wandb login`, never from the run file."""

    extra = "wandb"

    project: str = Field(default="sdpo", min_length=1)
    """Project of the tracked run."""
    entity: str | None = None
    """Team or user that owns the project; none: the one of the key."""
    mode: Literal["online", "offline"] = "online"
    """offline: written to RUN_DIR/wandb only, to be uploaded with `wandb sync`."""


class MlflowConfig(TrackerConfig):
    """MLflow. Name and password come from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token from
    MLFLOW_TRACKING_TOKEN."""

    extra = "mlflow"

    tracking_uri: Annotated[str | None, IsPath()] = None
    """A server (http://host:5000), a folder (file:///shared/mlruns) or a database; none: MLFLOW_TRACKING_URI."""
    experiment: str = Field(default="sdpo", min_length=1)
    """Experiment of the tracked run; made if there is none of that name."""


class TrackioConfig(TrackerConfig):
    """Trackio. Local (TRACKIO_DIR), or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL points."""

    extra = "trackio"

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


TRACKERS: dict[str, type[TrackerConfig]] = {
    key: get_args(field.annotation)[0] for key, field in TrackersConfig.model_fields.items()
}
"""The section of every tracker by its key."""
