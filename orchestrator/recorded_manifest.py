"""manifest.json of a folder of recorded rollouts: what produced them, and what may go on with or learn from them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.facts import installed
from orchestrator.fingerprint import Fingerprint
from orchestrator.recorded_format import FORMAT
from orchestrator.resume_rules import FREE, FREE_UNLESS_DETERMINISTIC, flat, is_in
from sdpo.config import RunConfig, SdpoObjective
from sdpo.errors import ConfigError, RecordingError
from sdpo.files import write_atomically

NAME = "manifest.json"
MATTERS = (
    "seed",
    "deterministic",
    "model.dtype",
    "model.max_model_len_tokens",
    "model.enable_thinking",
    "tasks.seed",
    "batch.tasks",
    "batch.samples_per_task",
    "rollout",
    "env",
)
"""Keys that decide what is sampled and how it is judged, but for those that may change on resuming."""
MUST_AGREE = (
    "batch.tasks",
    "batch.samples_per_task",
    "rollout.sampling.temperature",
    "rollout.sampling.max_response_tokens",
)
"""Keys that a run which learns from a recording must have as they were."""


class Manifest(BaseModel):
    """`weights`: fixed (those of `model.path` throughout) or trained (of a run that learned as it sampled).

    `tasks`: digests of the training tasks and of `env.code`; `sampled`: the keys of the config that matter;
    `support_size`: ids recorded per token, 0 for none; `packages`: versions, for people.
    """

    model_config = ConfigDict(frozen=True)

    format: str = FORMAT
    name: str
    weights: Literal["fixed", "trained"]
    model: Fingerprint
    tasks: dict[str, str]
    sampled: dict[str, Any]
    support_size: int
    packages: dict[str, str]

    @classmethod
    def of(
        cls, config: RunConfig, model: Fingerprint, digests: Mapping[str, str], weights: Literal["fixed", "trained"]
    ) -> "Manifest":
        """What this config would record."""
        return cls(
            name=config.name,
            weights=weights,
            model=model,
            tasks={key: digests[key] for key in ("tasks.train", "env.code")},
            sampled=dict(_parts(config)),
            support_size=config.rollout_support_size,
            packages=installed(),
        )

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """None where there is none. Raises `RecordingError` for one that cannot be read."""
        file = folder / NAME
        if not file.is_file():
            return None
        try:
            manifest = cls.model_validate_json(file.read_text())
        except (ValidationError, ValueError) as error:
            raise RecordingError(f"{file}: not readable: {str(error).splitlines()[0]}; allowed: as written") from None
        if manifest.format != FORMAT:
            raise RecordingError(f"{file}: format {manifest.format}; allowed: {FORMAT}, or the sdpo that wrote it")
        return manifest

    def write(self, folder: Path) -> None:
        """Into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / NAME, self.model_dump_json(indent=1) + "\n")

    def check_continues(self, now: "Manifest", folder: Path) -> None:
        """Raises `ConfigError`, naming the first key, if `now` would add batches of another kind."""
        before = self.model_dump(exclude={"name", "packages"})
        old, new = dict(flat(before)), dict(flat(now.model_dump(exclude={"name", "packages"})))
        for key in [*new, *old]:
            if old.get(key) != new.get(key):
                named = key.removeprefix("sampled.")
                values = "" if key.startswith(("model.", "tasks.")) else f"={new.get(key)} (was {old.get(key)})"
                raise ConfigError(f"{named}{values}: not what {folder} was begun with; allowed: another folder")

    def check_learns(self, config: RunConfig, model: Fingerprint) -> None:
        """Raises `ConfigError` if a run of `config` from the model `model` cannot learn from these attempts."""
        where = f"rollout.recorded={config.rollout.recorded}"
        for part in ("tokenizer", "chat_template", "architecture"):
            if getattr(self.model, part) != getattr(model, part):
                raise ConfigError(
                    f"{where}: recorded with a model of another {part.replace('_', ' ')} than "
                    f"model.path={config.model.path}; allowed: the model that it was recorded with, or a later "
                    f"checkpoint of it"
                )
        now = dict(flat(config.model_dump()))
        for key in MUST_AGREE:
            if now[key] != self.sampled[key]:
                raise ConfigError(f"{key}={now[key]}: allowed with {where}: {self.sampled[key]}, as recorded")
        if config.rollout_support_size > self.support_size:
            wanted = config.objective.top_k if isinstance(config.objective, SdpoObjective) else 0
            allowed = f"at most {self.support_size}, " if self.support_size else ""
            raise ConfigError(
                f"objective.top_k={wanted}: {where} holds {self.support_size} ids per token; allowed: {allowed}"
                f"or objective.support=student, teacher or full"
            )


def _parts(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Of the config, what decides the attempts; `env.code` counts by content, not by path."""
    free = FREE if config.deterministic else FREE + FREE_UNLESS_DETERMINISTIC
    for key, value in flat(config.model_dump(mode="json")):
        if is_in(key, MATTERS) and not is_in(key, free) and not is_in(key, ("env.code",)):
            yield key, value
