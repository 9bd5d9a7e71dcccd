"""The objectives that a run file may choose by `objective.kind`: one import and one member of the union each."""

from typing import Annotated

from pydantic import Field

from sdpo.objectives.grpo import GrpoObjective
from sdpo.objectives.sdpo import SdpoObjective

ObjectiveConfig = Annotated[SdpoObjective | GrpoObjective, Field(discriminator="kind")]
