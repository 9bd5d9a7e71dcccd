"""What a run asks of a cluster, as bundles: amounts by Ray's names that have to be on one node, and its labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdpo.config import RunConfig

SMALLEST = {"CPU": 0.001}
"""A reservation cannot ask for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """`Bundle(role="rollout", request={"CPU": 0.25, "GPU": 1.0}, labels={"sdpo-role": "rollout"})`; memory in bytes."""

    role: str
    request: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


def rank_bundles(config: RunConfig) -> list[dict[str, float]]:
    """What each rank's node has to have: the rank's own request and, where they live with it, engines' and teachers'.

    Engine or teacher i lives with rank i modulo ranks.
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
    """Everything that has to have room before the run can go on: of env workers the fewest (or the most) there are.

    `has_learner=False`: of a run that only samples and judges.
    """
    placement, demand = config.placement, dict(config.demand)
    if not has_learner:
        demand = {role: demand[role] for role in ("rollout", "env") if role in demand}
    if "env" in demand and not most_env_workers:
        demand["env"] = placement.env.min_workers, demand["env"][1]
    found = []
    if has_learner:
        labels = placement.learner.label_selector
        found = [Bundle(role="learner", request=bundle, labels=labels) for bundle in rank_bundles(config)]
    for role, (count, request) in demand.items():
        lives_with_learner = has_learner and placement.mode == "colocated" and role in ("rollout", "teacher")
        if role != "learner" and request and not lives_with_learner:
            found += [Bundle(role=role, request=request, labels=placement.of(role).label_selector)] * count
    return found
