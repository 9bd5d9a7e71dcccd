"""Whether the actors of a run fit into a cluster: into free resources, or whole nodes, and nodes an autoscaler may add.

Pure: `capacity_facts` reads the cluster. GPUs are devices: a share of a GPU has to be free on one of them. Actors are
packed greedily, so a shortage is certain only where it is marked `proven`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.cluster.bundles import Bundle, matches

EPSILON = 1e-6
ORDINARY = ("CPU", "memory", "object_store_memory")
"""Resources of every node; any other makes a node special."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that is up: all its resources and the free ones, by Ray's names, memory in bytes. name: its address."""

    name: str
    id: str = ""
    total: Mapping[str, float]
    free: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    type: str = ""
    """The autoscaler's name of its node type, if known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """A type of node of which an autoscaler may add `more`."""

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`more`: nodes of all types that may be added. `grows_unseen`: it may grow by nodes that are not known."""

    nodes: tuple[Node, ...]
    types: tuple[NodeType, ...] = ()
    more: int = 0
    grows_unseen: bool = False
    holders: tuple[str, ...] = ()
    """Namespaces of runs that hold reservations."""

    def empty(self) -> "Cluster":
        """Return the same cluster with nothing in use."""
        return replace(self, nodes=tuple(replace(n, free=n.total) for n in self.nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """`missing` of `wanted` actors of a role do not fit.

    `largest`: of each resource that they request, the most that one node with the labels has; `together`: what all such
    nodes have. `proven`: no other arrangement would fit either.
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
    """Free resources of one node, GPU by GPU: `Bin((1.0, 0.4), {"CPU": 8.0}, {"sdpo-role": "learner"})`."""

    devices: tuple[float, ...]
    rest: Mapping[str, float]
    labels: Mapping[str, str]

    @staticmethod
    def of(free: Mapping[str, float], labels: Mapping[str, str]) -> "Bin":
        """Return the bin of a node with these free resources; the largest GPU comes first."""
        gpus = free.get("GPU", 0.0)
        devices = [1.0] * math.floor(gpus + EPSILON)
        if gpus - len(devices) > EPSILON:
            devices.append(gpus - len(devices))
        return Bin(tuple(devices), {name: amount for name, amount in free.items() if name != "GPU"}, labels)

    def take(self, bundle: Bundle) -> "Bin | None":
        """Return what is left when `bundle` is placed here; None if it does not fit."""
        devices = _take_devices(self.devices, bundle.request.get("GPU", 0.0))
        taken = {name: amount for name, amount in bundle.request.items() if name != "GPU"}
        is_short = any(self.rest.get(name, 0.0) < amount - EPSILON for name, amount in taken.items())
        if devices is None or is_short or not matches(self.labels, bundle.labels):
            return None
        rest = {name: amount - taken.get(name, 0.0) for name, amount in self.rest.items()}
        return replace(self, devices=devices, rest=rest)

    def fill(self, bundle: Bundle, count: int) -> "tuple[Bin, int]":
        """Place up to `count` such bundles here; return what is left of the node, and how many do not fit."""
        node = self
        while count and (rest := node.take(bundle)) is not None:
            node, count = rest, count - 1
        return node, count

    def waste(self, bundle: Bundle) -> tuple[float, float, float]:
        """Return how badly `bundle` uses this node: kinds of special resources unused, then free GPUs and CPUs."""
        special = {
            name for name, amount in self.rest.items() if amount > 0 and name not in ORDINARY and ":" not in name
        }
        special |= {"GPU"} if self.devices else set()
        return len(special - set(bundle.request)), sum(self.devices), self.rest.get("CPU", 0.0)


def shortages(bundles: Sequence[Bundle], cluster: Cluster) -> list[Shortage]:
    """Return the roles with actors that do not fit, most missing actors first; [] if all fit."""
    left = _pack(bundles, cluster)
    proven = any(_is_proven(bundle, bundles, cluster) for bundle, _ in left)
    by_role = dict[str, list[tuple[Bundle, int]]]()
    for bundle, count in left:
        by_role.setdefault(bundle.role, []).append((bundle, count))
    missing = [_shortage(groups, bundles, cluster, proven) for groups in by_role.values()]
    return sorted(missing, key=lambda shortage: -shortage.missing)


def _shortage(
    left: Sequence[tuple[Bundle, int]], bundles: Sequence[Bundle], cluster: Cluster, proven: bool
) -> Shortage:
    bundle = left[0][0]
    offers, names = _offers(bundle, cluster), list(bundle.request)
    num_up = sum(matches(node.labels, bundle.labels) for node in cluster.nodes)
    num_more = min(cluster.more, sum(count for _, count in offers) - num_up)
    return Shortage(
        role=bundle.role,
        missing=sum(count for _, count in left),
        wanted=sum(b.role == bundle.role for b in bundles),
        bundle=bundle,
        largest={name: max((offer.get(name, 0.0) for offer, _ in offers), default=0.0) for name in names},
        together={name: sum(offer.get(name, 0.0) * count for offer, count in offers) for name in names},
        num_nodes=num_up + num_more,
        proven=proven,
    )


def _offers(bundle: Bundle, cluster: Cluster) -> list[tuple[Mapping[str, float], int]]:
    """Return (free resources, number of such nodes) of the nodes and node types with the bundle's labels."""
    nodes = [(node.free, 1) for node in cluster.nodes if matches(node.labels, bundle.labels)]
    types = [t for t in cluster.types if t.more and cluster.more and matches(t.labels, bundle.labels)]
    return nodes + [(t.resources, min(t.more, cluster.more)) for t in types]


def _is_proven(bundle: Bundle, bundles: Sequence[Bundle], cluster: Cluster) -> bool:
    """Return whether these bundles cannot fit in any arrangement.

    Either equal bundles are more than all nodes hold with nothing else on them (how many equal bundles one node holds
    does not depend on the arrangement), or all bundles with these labels request more of a resource than there is.
    """
    offers = _offers(bundle, cluster)
    alike = [b for b in bundles if b.labels == bundle.labels]
    num_equal = sum(b.request == bundle.request for b in alike)
    plain = replace(bundle, labels={})
    num_held = sum((num_equal - Bin.of(offer, {}).fill(plain, num_equal)[1]) * count for offer, count in offers)
    return num_held < num_equal or any(
        sum(b.request.get(name, 0.0) for b in alike) > sum(o.get(name, 0.0) * n for o, n in offers) + EPSILON
        for name in bundle.request
    )


def _pack(bundles: Sequence[Bundle], cluster: Cluster) -> list[tuple[Bundle, int]]:
    """Place equal bundles where they waste least, the hardest first; return those that fit nowhere and their numbers.

    A node stays the least wasteful one for equal bundles until it is full, so each node is filled in turn; nodes that
    may be added come last.
    """
    bins = [Bin.of(node.free, node.labels) for node in cluster.nodes]
    new = [(Bin.of(t.resources, t.labels), t.more) for t in cluster.types]
    num_added, left = [0] * len(new), []
    for bundle, count in _hardest_first(bundles, bins, [(node, min(more, cluster.more)) for node, more in new]):
        for index in sorted(range(len(bins)), key=lambda index: bins[index].waste(bundle)):
            bins[index], count = bins[index].fill(bundle, count)
        for index in sorted(range(len(new)), key=lambda index: new[index][0].waste(bundle)):
            node, more = new[index]
            while count and num_added[index] < more and sum(num_added) < cluster.more:
                rest, missing = node.fill(bundle, count)
                if missing == count:
                    break
                bins.append(rest)
                num_added[index], count = num_added[index] + 1, missing
        if count:
            left.append((bundle, count))
    return left


def _hardest_first(
    bundles: Sequence[Bundle], bins: Sequence[Bin], new: Sequence[tuple[Bin, int]]
) -> list[tuple[Bundle, int]]:
    """Return the different bundles and their numbers: those that fewest nodes can hold first, then the largest."""
    counts = list[tuple[Bundle, int]]()
    for bundle in bundles:
        if counts and counts[-1][0] == bundle:
            counts[-1] = bundle, counts[-1][1] + 1
        else:
            counts.append((bundle, 1))

    def key(group: tuple[Bundle, int]) -> tuple[float, ...]:
        bundle, nodes = group[0], [*((node, 1) for node in bins), *new]
        able = sum(count for node, count in nodes if node.take(bundle) is not None)
        return able, -bundle.request.get("GPU", 0.0), -sum(bundle.request.values())

    return sorted(counts, key=key)


def _take_devices(devices: tuple[float, ...], wanted: float) -> tuple[float, ...] | None:
    """Take whole GPUs, or a share of the one with the least left; return what is left, None if they do not suffice."""
    if wanted <= EPSILON:
        return devices
    num_devices, share = (1, wanted) if wanted < 1 - EPSILON else (round(wanted), 1.0)
    able = sorted(device for device in devices if device >= share - EPSILON)[:num_devices]
    if len(able) < num_devices:
        return None
    left = list(devices)
    for device in able:
        left.remove(device)
        if share < 1:
            left.append(round(device - share, 9))
    return tuple(sorted(left, reverse=True))
