"""Settings and results of a run in words, as the report and the model card print them."""

from collections.abc import Iterable, Mapping
from typing import Any

from sdpo.config import RunConfig

NOT_RECORDED = "not recorded"


def describe_teacher(config: RunConfig) -> str:
    """Return the rule by which the teacher follows the student, and the hindsight template."""
    if not config.uses_teacher:
        return "none in hindsight"
    return f"{config.teacher.regularisation.describe()}; hindsight template {config.hindsight.template_version}"


def versions(facts: Mapping[str, Any]) -> str:
    """Return the versions of the packages in a run, from its facts."""
    return ", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items()) or NOT_RECORDED


def pass_at_1(record: Mapping[str, Any]) -> str:
    """Return held-out pass@1 of a metrics record with its interval."""
    return _measured(record, "heldout/pass@1")


def heldout_reward(record: Mapping[str, Any]) -> str:
    """Return the mean held-out reward of a metrics record with its interval."""
    return _measured(record, "heldout/reward")


def tells_more(records: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the mean held-out reward differs from held-out pass@1 in any of these metrics records."""
    pairs = [(record.get("heldout/reward"), record.get("heldout/pass@1")) for record in records]
    return any(reward is not None and reward != rate for reward, rate in pairs)


def scores(pass_at_1: float | None, reward: float | None) -> str:
    """Return the held-out scores of a checkpoint: pass@1 and, where it is another, the mean reward."""
    if pass_at_1 is None:
        return "held-out pass@1 not measured"
    more = "" if reward is None or reward == pass_at_1 else f", held-out reward {reward:.4g}"
    return f"held-out pass@1 {pass_at_1:.3f}{more}"


def interval(record: Mapping[str, Any], name: str = "heldout/pass@1") -> str:
    """Return the 95 % interval of a held-out metric of a metrics record."""
    low, high = record.get(f"{name}_low"), record.get(f"{name}_high")
    return "no interval" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _measured(record: Mapping[str, Any], name: str) -> str:
    mean = record.get(name)
    return "not measured" if mean is None else f"{mean:.3f} [{interval(record, name)}]"
