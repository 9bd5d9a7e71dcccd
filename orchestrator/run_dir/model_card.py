"""The README.md of an exported model: Hugging Face's front matter, then the known facts of the run."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml
from jinja2 import Environment, StrictUndefined

from orchestrator.run_dir.run_view import RunView
from orchestrator.run_dir.wording import describe_teacher, heldout_reward, pass_at_1, tells_more, versions
from sdpo.config import RunConfig

CARD = "README.md"
_HUB_CACHE = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/")
# Read with the module: an uploaded package may be gone when a long run ends.
_TEMPLATES = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
_TEMPLATES.filters |= {"basename": lambda path: Path(path).name}
_TEMPLATES.filters |= {words.__name__: words for words in (pass_at_1, heldout_reward, tells_more)}
_TEMPLATE = _TEMPLATES.from_string((Path(__file__).parent / "model_card.md.jinja").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What the card describes. `base`: the folder of the model that the run started from, where it is now."""

    steps: int
    base: Path
    dtype: str
    num_parameters: int | None = None
    is_teacher: bool = False
    is_adapter: bool = False


def model_card(view: RunView, exported: Exported) -> str:
    """Return the card in Markdown. It names files and folders without their path on this machine."""
    config = view.config
    body = _TEMPLATE.render(
        config=config,
        exported=exported,
        base=hub_id(exported.base) or exported.base.absolute().name,
        architecture=_architecture(exported.base),
        records={record["step"]: record for record in view.metrics},
        view=view,
        tasks=view.facts.get("tasks", {}),
        teacher=describe_teacher(config),
        versions=versions(view.facts),
        now=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return f"---\n{_front_matter(config, exported)}---\n\n{body}"


def hub_id(folder: Path) -> str | None:
    """Return `Qwen/Qwen3-8B` for a snapshot in the Hugging Face cache; None for any other path."""
    found = _HUB_CACHE.search(f"{folder.absolute()}/")
    return f"{found[1]}/{found[2]}" if found else None


def _front_matter(config: RunConfig, exported: Exported) -> str:
    """Return the metadata as YAML. `base_model` is left out if unknown: the hub refuses what is no repository."""
    known = hub_id(exported.base)
    metadata = ({} if known is None else {"base_model": known}) | {
        "library_name": "peft" if exported.is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": [config.objective.kind, "reinforcement-learning", *(["lora"] if config.learner.lora else [])],
    }
    return yaml.safe_dump(metadata, sort_keys=False)


def _architecture(base: Path) -> str:
    names: list[str] = json.loads((base / "config.json").read_text()).get("architectures") or ["unknown architecture"]
    return ", ".join(names)
