"""The strict base of every section: unknown keys are errors, values are frozen, every field is described."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of a config section."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
