"""Resources for actors, reserved in Ray before they run.

A reservation that waits for resources makes Ray's autoscaler add nodes; one that was released lets a node go.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sdpo.config.placement import ActorPlacement
from sdpo.errors import InfrastructureError
from sdpo.show import show_bytes

POLL_S = 0.25


class Reservation:
    """A placement group: bundles placed together, close to each other, each on one node that has all of `labels`.

    `Reservation("a-run-1/learner", [{"GPU": 1.0, "CPU": 0.25}] * 2, {"sdpo-role": "learner"})`
    """

    def __init__(self, name: str, bundles: Sequence[Mapping[str, float]], labels: Mapping[str, str]) -> None:
        self.name = name
        self._request = describe(bundles[0], labels) + (f" {len(bundles)} times" if len(bundles) > 1 else "")
        selectors = [dict(labels) for _ in bundles] if labels else None
        self._group: PlacementGroup = placement_group(
            [dict(bundle) for bundle in bundles], strategy="PACK", name=name, bundle_label_selector=selectors
        )

    def strategy(self, bundle: int) -> PlacementGroupSchedulingStrategy:
        """Return the option `scheduling_strategy` of an actor that uses this bundle."""
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)

    async def wait_placed(self, timeout_s: float | None = None) -> dict[int, str]:
        """Wait until Ray has placed every bundle; return the id of each bundle's node.

        Raises `InfrastructureError`, which names the request, after `timeout_s`; None waits without end.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    entry = placement_group_table(self._group)
                    if entry.get("state") == "CREATED":
                        nodes: dict[int, str] = entry["bundles_to_node_id"]
                        return nodes
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            role = self.name.rpartition("/")[2]
            raise InfrastructureError(f"{role}: no node had {self._request} free within {timeout_s:g} s") from None

    def release(self) -> None:
        """Remove the reservation; Ray ends the actors that use it."""
        remove_placement_group(self._group)


class ActorSlot:
    """The resources of one actor: a reservation of its own, a bundle of another's, or none if it requests nothing."""

    def __init__(self, name: str, placement: ActorPlacement, shared: tuple[Reservation, int] | None = None) -> None:
        """`shared`: the reservation and the bundle in it that hold this actor's part; the slot does not release it."""
        self.node_id: str | None = None
        """The node that has the resources, once Ray has chosen it."""
        self._options, request = options_of(placement), placement.request
        self._reservation: Reservation | None
        self._reservation, self._bundle = shared if shared is not None else (None, 0)
        self._is_own = shared is None and bool(request)
        if self._is_own:
            self._reservation = Reservation(name, [request], placement.label_selector)

    @property
    def options(self) -> dict[str, Any]:
        """Ray's options of the slot's actor. Where a reservation chose a node by its labels, the actor does not."""
        if self._reservation is None:
            return self._options
        options = {key: value for key, value in self._options.items() if key != "label_selector"}
        return options | {"scheduling_strategy": self._reservation.strategy(self._bundle)}

    async def wait_placed(self, timeout_s: float | None = None) -> None:
        """Wait until a node has the resources. Raises as `Reservation.wait_placed`."""
        if self._reservation is not None:
            self.node_id = (await self._reservation.wait_placed(timeout_s))[self._bundle]

    def is_lost(self) -> bool:
        """Return whether the node that had the resources is dead, as far as Ray knows by now."""
        return self.node_id is not None and not any(n["Alive"] for n in ray.nodes() if n["NodeID"] == self.node_id)

    def release(self) -> None:
        """Remove the slot's own reservation, if it has one; Ray ends the actor that uses it."""
        if self._is_own and self._reservation is not None:
            self._reservation.release()


class MemberSlots:
    """The slots of a fleet, one a member. A replacement reuses the slot of its member while the slot's node is alive.

    `take` reserves, `wait_placed` waits, `close` releases all.
    """

    def __init__(
        self, namespace: str, placement: ActorPlacement, shared: Callable[[int], tuple[Reservation, int]] | None = None
    ) -> None:
        """`shared(index)`: the reservation and bundle of member `index`, where members have none of their own."""
        self._namespace, self._placement, self._shared = namespace, placement, shared
        self._slots = dict[int, ActorSlot]()

    def take(self, name: str) -> ActorSlot:
        """Return the slot of the member whose actor is now `name` (`rollout-2`, `rollout-2-r1`), or make a new one.

        If the node died and Ray has not noticed, Ray itself places the reservation on another node.
        """
        index = index_of(name)
        slot = self._slots.get(index)
        if slot is not None and not (self._shared is None and slot.is_lost()):
            return slot
        if slot is not None:
            slot.release()
        shared = None if self._shared is None else self._shared(index)
        self._slots[index] = ActorSlot(f"{self._namespace}/{name}", self._placement, shared)
        return self._slots[index]

    async def wait_placed(self, name: str, timeout_s: float) -> None:
        """Wait until a node has the resources of `name`. Raises `InfrastructureError` after `timeout_s`."""
        await self._slots[index_of(name)].wait_placed(timeout_s)

    def close(self) -> None:
        """Release every slot; Ray ends the actors that use them."""
        for slot in self._slots.values():
            slot.release()
        self._slots.clear()


def index_of(name: str) -> int:
    """Return the index of the member whose actor is `name`: 2 for `rollout-2-r1`."""
    return int(name.split("-")[1])


def options_of(placement: ActorPlacement) -> dict[str, Any]:
    """Return Ray's options of an actor that requests what `placement` says."""
    request = placement.request
    options: dict[str, Any] = {"num_cpus": request.pop("CPU", 0), "num_gpus": request.pop("GPU", 0)}
    if (memory := request.pop("memory", None)) is not None:
        options["memory"] = int(memory)
    if placement.label_selector:
        options["label_selector"] = dict(placement.label_selector)
    return options | {"resources": request}


def describe(resources: Mapping[str, float], labels: Mapping[str, str] | None = None) -> str:
    """Return resources as text: `0.25 CPU and 1 env_slot on a node with sdpo-role=env`."""
    amounts = [describe_amount(name, amount) for name, amount in sorted(resources.items()) if amount > 0]
    text = " and ".join(amounts) or "nothing"
    return text + (f" on a node with {describe_labels(labels)}" if labels else "")


def describe_amount(name: str, amount: float) -> str:
    """Return one of Ray's resources as text: "0.25 CPU", "16 GiB memory" (memory is in bytes)."""
    return f"{show_bytes(amount)} memory" if name == "memory" else f"{amount:g} {name}"


def describe_labels(labels: Mapping[str, str]) -> str:
    """Return label selectors as text: `sdpo-role=rollout and zone=in(a,b)`."""
    return " and ".join(f"{key}={value}" for key, value in sorted(labels.items()))
