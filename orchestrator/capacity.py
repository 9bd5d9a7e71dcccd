"""Whether a cluster has room for a run: nodes as they are or with everything free, and those an autoscaler may add.

Pure: what there is comes from `capacity_facts`. GPUs are devices: a share of a GPU has to be free on one of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.bundles import Bundle
from orchestrator.labels import matches

MAX_SEARCHED_BUNDLES, MAX_STEPS = 48, 20_000
"""Beyond these a packing that the greedy way does not find is not searched for: the answer is then "not known"."""
EPSILON = 1e-6
ORDINARY = ("CPU", "memory", "object_store_memory")
"""What every node has; anything else makes a node fit for something in particular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that is up: what it has and what of that is free, by Ray's names, memory in bytes. name: its address."""

    name: str
    id: str = ""
    total: Mapping[str, float]
    free: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    type: str = ""
    """The autoscaler's name of its node type, if known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """What an autoscaler may add `more` nodes of."""

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`more`: nodes that may come in all. `grows_unseen`: an autoscaler is there, and what it may add is not known."""

    nodes: tuple[Node, ...]
    types: tuple[NodeType, ...] = ()
    more: int = 0
    grows_unseen: bool = False
    holders: tuple[str, ...] = ()
    """Namespaces of runs that hold reservations."""

    def empty(self) -> "Cluster":
        """The same with nothing in use."""
        return replace(self, nodes=tuple(replace(n, free=n.total) for n in self.nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """`missing` of `wanted` actors of a role have no place. `largest`: of each resource they ask for, the most that one
    node with the labels has; `together`: what all such nodes have. proven: no other arrangement would do.
    """

    role: str
    missing: int
    wanted: int
    bundle: Bundle
    largest: Mapping[str, float]
    together: Mapping[str, float]
    num_nodes: int
    proven: bool


@dataclass(frozen=True, slots=True)
class Bin:
    """What is free on one node: its devices apart from the rest. `growth`: the type that it would be a new node of."""

    devices: tuple[float, ...]
    rest: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, str], ...]
    growth: int | None = None

    @staticmethod
    def of(free: Mapping[str, float], labels: Mapping[str, str], growth: int | None = None) -> "Bin":
        gpus = free.get("GPU", 0.0)
        devices = [1.0] * math.floor(gpus + EPSILON)
        if gpus - len(devices) > EPSILON:
            devices.append(gpus - len(devices))
        rest = {name: amount for name, amount in free.items() if name != "GPU"}
        return Bin(tuple(devices), tuple(sorted(rest.items())), tuple(sorted(labels.items())), growth)

    def take(self, bundle: Bundle) -> "list[Bin]":
        """What is left when `bundle` lives here, for every choice of a GPU that differs; [] if it cannot."""
        if not matches(dict(self.labels), bundle.labels):
            return []
        rest = dict(self.rest)
        for name, amount in bundle.request.items():
            if name != "GPU":
                rest[name] = rest.get(name, 0.0) - amount
                if rest[name] < -EPSILON:
                    return []
        choices = _take_devices(self.devices, bundle.request.get("GPU", 0.0))
        return [replace(self, devices=devices, rest=tuple(sorted(rest.items()))) for devices in choices]

    def unused(self, bundle: Bundle) -> tuple[float, float, float]:
        """How much is wasted on `bundle` here: kinds of resources that it does not ask for, then what would be left."""
        rest = dict(self.rest)
        kinds = {name for name, amount in rest.items() if amount > 0 and name not in ORDINARY}
        kinds |= {"GPU"} if self.devices else set()
        return len(kinds - set(bundle.request)), sum(self.devices), rest.get("CPU", 0.0)


def shortages(bundles: Sequence[Bundle], cluster: Cluster) -> list[Shortage]:
    """Who has no place, by role, the roles with the most missing first; [] if everybody has one."""
    cluster = _relevant(bundles, cluster)
    bins = [Bin.of(node.free, node.labels) for node in cluster.nodes]
    left = _greedily(bundles, bins, cluster)
    if not left:
        return []
    proven = any(_cannot(bundle, bundles, cluster) for bundle in left)
    if not proven and len(bundles) <= MAX_SEARCHED_BUNDLES:
        answer = _Search(_hardest_first(bundles, bins, cluster), cluster).run(bins)
        if answer is True:
            return []
        proven = answer is False
    by_role: dict[str, list[Bundle]] = {}
    for bundle in left:
        by_role.setdefault(bundle.role, []).append(bundle)
    found = [_shortage(role, missing, bundles, cluster, proven) for role, missing in by_role.items()]
    return sorted(found, key=lambda shortage: -shortage.missing)


def _relevant(bundles: Sequence[Bundle], cluster: Cluster) -> Cluster:
    """Without what makes nodes differ that are alike to these bundles."""
    asked = {name for bundle in bundles for name in bundle.request}
    chosen = {name for bundle in bundles for name in bundle.labels}

    def amounts(resources: Mapping[str, float]) -> dict[str, float]:
        return {n: a for n, a in resources.items() if n in asked or (n not in ORDINARY and ":" not in n)}

    def labels(found: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in found.items() if name in chosen}

    nodes = tuple(replace(n, free=amounts(n.free), labels=labels(n.labels)) for n in cluster.nodes)
    types = tuple(replace(t, resources=amounts(t.resources), labels=labels(t.labels)) for t in cluster.types)
    return replace(cluster, nodes=nodes, types=types)


def _shortage(role: str, left: list[Bundle], bundles: Sequence[Bundle], cluster: Cluster, proven: bool) -> Shortage:
    able, names = _offers(left[0], cluster), list(left[0].request)
    num_here = sum(matches(node.labels, left[0].labels) for node in cluster.nodes)
    num_more = min(cluster.more, sum(count for _, count in able) - num_here)
    return Shortage(
        role=role,
        missing=len(left),
        wanted=sum(bundle.role == role for bundle in bundles),
        bundle=left[0],
        largest={name: max((offer.get(name, 0.0) for offer, _ in able), default=0.0) for name in names},
        together={name: sum(offer.get(name, 0.0) * count for offer, count in able) for name in names},
        num_nodes=num_here + num_more,
        proven=proven,
    )


def _offers(bundle: Bundle, cluster: Cluster) -> list[tuple[Mapping[str, float], int]]:
    """What each node with the bundle's labels has free, and each kind that may come, how often."""
    here = [(node.free, 1) for node in cluster.nodes if matches(node.labels, bundle.labels)]
    types = [t for t in cluster.types if t.more and cluster.more and matches(t.labels, bundle.labels)]
    return here + [(t.resources, min(t.more, cluster.more)) for t in types]


def _cannot(bundle: Bundle, bundles: Sequence[Bundle], cluster: Cluster) -> bool:
    """Whether it is plain that there is no way: no node holds this one, or all of its kind are too much together."""
    offers = _offers(bundle, cluster)
    if not any(Bin.of(offer, {}).take(replace(bundle, labels={})) for offer, _ in offers):
        return True
    alike = [b for b in bundles if b.labels == bundle.labels]
    return any(
        sum(b.request.get(name, 0.0) for b in alike) > sum(o.get(name, 0.0) * n for o, n in offers) + EPSILON
        for name in bundle.request
    )


def _hardest_first(bundles: Sequence[Bundle], bins: Sequence[Bin], cluster: Cluster) -> list[Bundle]:
    """Those with the fewest places first, then the largest."""
    places: dict[tuple[object, ...], int] = {}

    def key(bundle: Bundle) -> tuple[float, ...]:
        same = (tuple(sorted(bundle.request.items())), tuple(sorted(bundle.labels.items())))
        if same not in places:
            new = [Bin.of(t.resources, t.labels) for t in cluster.types for _ in range(min(t.more, cluster.more))]
            places[same] = sum(bool(b.take(bundle)) for b in [*bins, *new])
        return places[same], -bundle.request.get("GPU", 0.0), -sum(bundle.request.values())

    return sorted(bundles, key=key)


def _greedily(bundles: Sequence[Bundle], start: Sequence[Bin], cluster: Cluster) -> list[Bundle]:
    """Each in the place that wastes least; returns those that found none."""
    bins, left = list(start), []
    for bundle in _hardest_first(bundles, start, cluster):
        choices = _choices(bundle, bins, cluster)
        if choices:
            _settle(bins, *choices[0])
        else:
            left.append(bundle)
    return left


def _choices(bundle: Bundle, bins: Sequence[Bin], cluster: Cluster) -> list[tuple[int, Bin]]:
    """(place, what is left there) of every place that differs, the least wasteful first; new nodes last.

    A place that is the number of bins stands for a new node.
    """
    first = dict[Bin, int]()
    for index, place in enumerate(bins):
        first.setdefault(place, index)
    best = sorted(first, key=lambda place: place.unused(bundle))
    chosen = [(first[place], left) for place in best for left in place.take(bundle)]
    grown = [place.growth for place in bins if place.growth is not None]
    if len(grown) < cluster.more:
        new = [
            Bin.of(kind.resources, kind.labels, number)
            for number, kind in enumerate(cluster.types)
            if grown.count(number) < kind.more
        ]
        new.sort(key=lambda place: place.unused(bundle))
        chosen += [(len(bins), left) for place in new for left in place.take(bundle)]
    return chosen


def _settle(bins: list[Bin], index: int, left: Bin) -> None:
    if index == len(bins):
        bins.append(left)
    else:
        bins[index] = left


class _Search:
    """Every arrangement, until one is found or `MAX_STEPS` are spent."""

    def __init__(self, bundles: Sequence[Bundle], cluster: Cluster) -> None:
        self._bundles, self._cluster, self._steps = bundles, cluster, 0

    def run(self, bins: Sequence[Bin], number: int = 0) -> bool | None:
        """True: all have a place; False: there is no way; None: not known."""
        if number == len(self._bundles):
            return True
        self._steps += 1
        if self._steps > MAX_STEPS:
            return None
        answer: bool | None = False
        for index, left in _choices(self._bundles[number], bins, self._cluster):
            after = list(bins)
            _settle(after, index, left)
            answer = self.run(after, number + 1)
            if answer is not False:
                return answer
        return answer


def _take_devices(devices: tuple[float, ...], wanted: float) -> list[tuple[float, ...]]:
    """What is left of the devices: whole GPUs are taken, or a share of one, first of the one with the least left."""
    if wanted <= EPSILON:
        return [devices]
    if wanted < 1 - EPSILON:
        found = []
        for device in sorted({d for d in devices if d >= wanted - EPSILON}):
            rest = list(devices)
            rest.remove(device)
            found.append(tuple(sorted([*rest, round(device - wanted, 9)], reverse=True)))
        return found
    whole = [device for device in devices if device >= 1 - EPSILON]
    if len(whole) < round(wanted):
        return []
    return [tuple(sorted([*whole[round(wanted) :], *(d for d in devices if d < 1 - EPSILON)], reverse=True))]
