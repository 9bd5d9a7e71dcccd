"""What a run requests of a cluster, as bundles: resources that have to be on one node, and the labels of that node."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdpo.config import RunConfig

SMALLEST = {"CPU": 0.001}
"""Ray refuses a reservation of nothing."""
_SET_SELECTOR = re.compile(r"^(!?)in\((.*)\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """`Bundle(role="rollout", request={"CPU": 0.25, "GPU": 1.0}, labels={"sdpo-role": "rollout"})`; memory in bytes."""

    role: str
    request: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


def rank_bundles(config: RunConfig) -> list[dict[str, float]]:
    """Return the request of each learner rank; colocated, with those of the engines and teachers on its node.

    Engine or teacher i shares the bundle of rank i modulo ranks.
    """
    placement = config.placement
    bundles = [dict(placement.learner.request) for _ in range(placement.learner.ranks)]
    if placement.mode == "colocated":
        for role in ("rollout", "teacher"):
            count, request = config.demand.get(role, (0, {}))
            for index in range(count):
                bundle = bundles[index % len(bundles)]
                for name, amount in request.items():
                    bundle[name] = bundle.get(name, 0.0) + amount
    return [bundle or SMALLEST for bundle in bundles]


def bundles_of(config: RunConfig, *, has_learner: bool = True, most_env_workers: bool = False) -> list[Bundle]:
    """Return all bundles that have to fit before the run starts, with the fewest (or the most) env workers.

    `has_learner=False`: the bundles of a run that only samples and judges.
    """
    placement, demand = config.placement, dict(config.demand)
    if not has_learner:
        demand = {role: demand[role] for role in ("rollout", "env") if role in demand}
    if "env" in demand and not most_env_workers:
        demand["env"] = placement.env.min_workers, demand["env"][1]
    bundles = []
    if has_learner:
        labels = placement.learner.label_selector
        bundles = [Bundle(role="learner", request=request, labels=labels) for request in rank_bundles(config)]
    for role, (count, request) in demand.items():
        is_in_learner = has_learner and placement.mode == "colocated" and role in ("rollout", "teacher")
        if role != "learner" and request and not is_in_learner:
            bundles += [Bundle(role=role, request=request, labels=placement.of(role).label_selector)] * count
    return bundles


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Return whether a node with `labels` fulfils Ray's label selectors: `value`, `!value`, `in(a,b)` and `!in(a,b)`.

    All of them have to hold. A label that the node lacks is unlike every value.
    """
    return all(_holds(labels.get(name), wanted.strip()) for name, wanted in selector.items())


def _holds(value: str | None, wanted: str) -> bool:
    if (many := _SET_SELECTOR.match(wanted)) is not None:
        return (value in {word.strip() for word in many[2].split(",")}) is not bool(many[1])
    if wanted.startswith("!"):
        return value != wanted[1:]
    return value == wanted
