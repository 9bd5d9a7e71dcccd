"""manifest.json of a folder of recorded rollouts: what produced them, which runs may add batches or learn from them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.recorded.batch_file import FORMAT
from orchestrator.recorded.fingerprint import Fingerprint
from orchestrator.run_dir.facts import installed
from orchestrator.run_dir.resume_rules import FREE, FREE_UNLESS_DETERMINISTIC, is_in
from sdpo.config import RunConfig
from sdpo.config.keys import flat
from sdpo.errors import ConfigError, RecordingError
from sdpo.files import write_atomically
from sdpo.prompt_date import PROMPT_DATE
from sdpo.run_layout import MANIFEST

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
"""Keys that decide what is sampled and how it is judged; those that may change on resuming are taken off."""
MUST_AGREE = (
    "batch.tasks",
    "batch.samples_per_task",
    "rollout.sampling.temperature",
    "rollout.sampling.max_response_tokens",
)
"""Keys whose values a run that learns from a recording must share with it."""


class Manifest(BaseModel):
    """What produced recorded batches.

    `weights`: fixed (those of `model.path` throughout) or trained (of a run that learned while it sampled);
    `tasks`: digests of the training tasks and of `env.code`; `sampled`: the keys of the config that matter;
    `support_size`: ids recorded per token, 0 for none; `packages`: versions, for people; `prompt_date`: the date of the
    prompts, None where the chat template shows none.
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
    prompt_date: str | None = None

    @classmethod
    def of(
        cls, config: RunConfig, model: Fingerprint, digests: Mapping[str, str], weights: Literal["fixed", "trained"]
    ) -> "Manifest":
        """Return the manifest of what a run of this config records."""
        return cls(
            name=config.name,
            weights=weights,
            model=model,
            tasks={key: digests[key] for key in ("tasks.train", "env.code")},
            sampled=dict(_parts(config)),
            support_size=config.rollout_support_size,
            packages=installed(),
            prompt_date=digests.get(PROMPT_DATE),
        )

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Return the manifest of a folder, None where there is none. Raises `RecordingError` for a damaged one."""
        file = folder / MANIFEST
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
        """Write the manifest into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / MANIFEST, self.model_dump_json(indent=1) + "\n")

    def check_continues(self, now: "Manifest", folder: Path) -> None:
        """Raises `ConfigError`, naming the first key, if a run with the manifest `now` would add other batches."""
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
            allowed = f"at most {self.support_size}, " if self.support_size else ""
            raise ConfigError(
                f"objective.top_k={config.rollout_support_size}: {where} holds {self.support_size} ids per token; "
                f"allowed: {allowed}or objective.support=student, teacher or full"
            )


def _parts(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the config that decide the attempts; `env.code` is compared by its digest instead."""
    free = FREE if config.deterministic else FREE + FREE_UNLESS_DETERMINISTIC
    for key, value in flat(config.model_dump(mode="json")):
        if is_in(key, MATTERS) and not is_in(key, free) and not is_in(key, ("env.code",)):
            yield key, value
