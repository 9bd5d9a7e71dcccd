"""Room for one actor, reserved in Ray before the actor runs.

What waits for room is what Ray's autoscaler brings nodes for; what gives its room back is what lets a node go.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.options import options_of
from sdpo.config.placement import ActorPlacement

POLL_S = 0.25


class Room:
    """A reservation of what one actor asks for, pending until a node has it; who asks for nothing need not wait."""

    def __init__(self, name: str, placement: ActorPlacement) -> None:
        self.node_id: str | None = None
        """The node that has the room, once it is found."""
        self._options, wanted = options_of(placement), placement.request
        self._group: PlacementGroup | None = None
        if wanted:
            labels = [placement.label_selector] if placement.label_selector else None
            self._group = placement_group([wanted], name=name, bundle_label_selector=labels)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the actor that is to live here. The reservation has found the labels; the actor need not."""
        options = {key: value for key, value in self._options.items() if key != "label_selector"}
        if self._group is not None:
            strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0)
            options["scheduling_strategy"] = strategy
        return options

    async def find(self) -> None:
        """Returns when a node has the room, which may be never."""
        while self._group is not None:
            entry = placement_group_table(self._group)
            if entry.get("state") == "CREATED":
                self.node_id = entry["bundles_to_node_id"][0]
                return
            await asyncio.sleep(POLL_S)

    def is_lost(self) -> bool:
        """Whether the node that had the room is gone, as far as Ray knows by now."""
        return self.node_id is not None and not any(n["Alive"] for n in ray.nodes() if n["NodeID"] == self.node_id)

    def give_back(self) -> None:
        """End the reservation, and what lives in it."""
        if self._group is not None:
            remove_placement_group(self._group)


def describe(resources: Mapping[str, float]) -> str:
    """Resources in words: 0.25 CPU and 1 env_slot."""
    return " and ".join(f"{amount:g} {key}" for key, amount in sorted(resources.items()) if amount > 0) or "nothing"
