"""docs/config.md says what the config models say."""

import runpy
from pathlib import Path

from pydantic import BaseModel

from sdpo.config import RunConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPT = runpy.run_path(str(DOCS / "make_config_reference.py"))


def every_field(model: type[BaseModel]):
    for name, field in model.model_fields.items():
        yield model, name, field
        for inner in SCRIPT["models_in"](field.annotation):
            yield from every_field(inner)


def test_reference_is_current():
    assert (DOCS / "config.md").read_text() == SCRIPT["render"](), "run `make docs`"


def test_every_key_is_described():
    assert [f"{m.__name__}.{name}" for m, name, field in every_field(RunConfig) if not field.description] == []


def test_every_key_is_in_the_reference():
    text = SCRIPT["render"]()
    assert [name for _, name, _ in every_field(RunConfig) if f"`{name}`" not in text and f"{name}`" not in text] == []
