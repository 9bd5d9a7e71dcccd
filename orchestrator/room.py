"""Room for actors, reserved in Ray before they run.

What waits for room is what Ray's autoscaler brings nodes for; what gives its room back is what lets a node go.
"""

import asyncio
from collections.abc import Mapping, Sequence
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
from sdpo.errors import InfrastructureError

POLL_S = 0.25


class Reservation:
    """A placement group: bundles that are found together, near each other, each on one node with all of `labels`.

    `Reservation("a-run-1/learner", [{"GPU": 1.0, "CPU": 0.25}] * 2, {"sdpo-role": "learner"})`
    """

    def __init__(self, name: str, bundles: Sequence[Mapping[str, float]], labels: Mapping[str, str]) -> None:
        self.name = name
        self._wanted = describe(bundles[0], labels) + (f" {len(bundles)} times" if len(bundles) > 1 else "")
        selectors = [dict(labels) for _ in bundles] if labels else None
        self._group: PlacementGroup = placement_group(
            [dict(bundle) for bundle in bundles], strategy="PACK", name=name, bundle_label_selector=selectors
        )

    def strategy(self, bundle: int) -> PlacementGroupSchedulingStrategy:
        """For the option `scheduling_strategy` of an actor that is to live in this bundle."""
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)

    async def find(self) -> dict[int, str]:
        """The node of each bundle, when all are found, which may be never."""
        while True:
            entry = placement_group_table(self._group)
            if entry.get("state") == "CREATED":
                nodes: dict[int, str] = entry["bundles_to_node_id"]
                return nodes
            await asyncio.sleep(POLL_S)

    async def find_within(self, timeout_s: float) -> dict[int, str]:
        """As `find`; raises `InfrastructureError`, which says for what there was no room, after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.find()
        except TimeoutError:
            who = self.name.rpartition("/")[2]
            raise InfrastructureError(f"{who}: no room for {self._wanted} within {timeout_s:g} s") from None

    def give_back(self) -> None:
        """End the reservation, and what lives in it."""
        remove_placement_group(self._group)


class Room:
    """Where one actor lives: a reservation of its own, or a bundle of another's; who asks for nothing has none."""

    def __init__(self, name: str, placement: ActorPlacement, inside: tuple[Reservation, int] | None = None) -> None:
        """`inside`: the reservation and its bundle that hold this actor's share; it stays theirs."""
        self.node_id: str | None = None
        """The node that has the room, once it is found."""
        self._options, wanted = options_of(placement), placement.request
        self._reservation: Reservation | None
        self._reservation, self._bundle = inside if inside is not None else (None, 0)
        self._is_own = inside is None and bool(wanted)
        if self._is_own:
            self._reservation = Reservation(name, [wanted], placement.label_selector)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the actor that is to live here. The reservation has found the labels; the actor need not."""
        if self._reservation is None:
            return self._options
        options = {key: value for key, value in self._options.items() if key != "label_selector"}
        return options | {"scheduling_strategy": self._reservation.strategy(self._bundle)}

    async def find(self) -> None:
        """Returns when a node has the room, which may be never."""
        if self._reservation is not None:
            self.node_id = (await self._reservation.find())[self._bundle]

    async def find_within(self, timeout_s: float) -> None:
        """As `find`; raises `InfrastructureError`, which says for what there was no room, after `timeout_s`."""
        if self._reservation is not None:
            self.node_id = (await self._reservation.find_within(timeout_s))[self._bundle]

    def is_lost(self) -> bool:
        """Whether the node that had the room is gone, as far as Ray knows by now."""
        return self.node_id is not None and not any(n["Alive"] for n in ray.nodes() if n["NodeID"] == self.node_id)

    def give_back(self) -> None:
        """End the reservation, if it is this room's own, and what lives in it."""
        if self._is_own and self._reservation is not None:
            self._reservation.give_back()


def describe(resources: Mapping[str, float], labels: Mapping[str, str] | None = None) -> str:
    """Resources in words: 0.25 CPU and 1 env_slot on a node with sdpo-role=env."""
    wanted = " and ".join(f"{amount:g} {key}" for key, amount in _in_words(resources) if amount > 0) or "nothing"
    return wanted + (f" on a node with {describe_labels(labels)}" if labels else "")


def describe_labels(labels: Mapping[str, str]) -> str:
    """Labels in words: sdpo-role=rollout and zone=in(a,b)."""
    return " and ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _in_words(resources: Mapping[str, float]) -> list[tuple[str, float]]:
    """Memory in GiB."""
    named = {("GiB memory" if key == "memory" else key): amount for key, amount in resources.items()}
    return sorted((k, round(v / 2**30, 1) if k == "GiB memory" else v) for k, v in named.items())
