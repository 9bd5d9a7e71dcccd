"""Before a run reserves anything: is there room for it in the cluster, will there be, or can there never be."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from orchestrator.bundles import Bundle
from orchestrator.capacity import ORDINARY, Cluster, Shortage, shortages
from orchestrator.room import describe, describe_labels
from sdpo.errors import InfrastructureError, PlacementError

log = logging.getLogger(__name__)

POLL_S = 1.0
NAMES = {"learner": "learner ranks", "rollout": "rollout workers", "env": "env workers", "teacher": "teachers"}


def require_room(
    bundles: Sequence[Bundle],
    look: Callable[[], Cluster],
    where: str,
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Returns when there is room for all bundles at once, in nodes that are up or that an autoscaler adds.

    Raises `PlacementError` (exit code 2) at once if the whole cluster could not hold them with nothing else in it, and
    `InfrastructureError` if there is no room after `timeout_s`; both name role, resource, what is wanted and what
    there is. What only a search without end could tell, or an autoscaler that cannot be read, is left to the
    reservations, which have deadlines of their own. `where`: the cluster in words.
    """
    began_s, is_told = clock(), False
    while True:
        cluster = look()
        never = shortages(bundles, cluster.empty())
        if cluster.grows_unseen or not all(s.proven for s in never):
            if missing := shortages(bundles, cluster):
                log.warning("%s; waiting for nodes that may come", sentence(missing[0], where))
            return
        if never:
            raise PlacementError(f"{sentence(never[0], where)}{_others(never)}")
        missing = shortages(bundles, cluster)
        if not missing:
            return
        holders = f"; held by {', '.join(cluster.holders)}" if cluster.holders else ""
        said = f"{sentence(missing[0], f'{where} now')}{holders}"
        if clock() - began_s >= timeout_s:
            raise InfrastructureError(f"{said}; no room within deadlines.start_s={timeout_s:g}")
        if not is_told:
            log.warning("%s; waiting up to %g s for room", said, timeout_s)
            is_told = True
        pause(POLL_S)


def sentence(shortage: Shortage, where: str) -> str:
    """`placement.learner: 2 of 4 learner ranks have no place in the cluster at …; each asks for 2 GPU; available: …`"""
    bundle = shortage.bundle
    begin = (
        f"placement.{shortage.role}: {shortage.missing} of {shortage.wanted} {NAMES[shortage.role]} have no place in "
        f"{where}; each asks for {describe(bundle.request)}"
    )
    labels = f" with {describe_labels(bundle.labels)}" if bundle.labels else ""
    if shortage.num_nodes == 0:
        return f"{begin}{labels and f' on a node{labels}'}; allowed: no node{labels} is there or can be added"
    names = lacking(shortage)
    largest = _amounts(shortage.largest, names)
    together = _amounts(shortage.together, names)
    return f"{begin}; available: {largest} on the largest node{labels}, {together} on all {shortage.num_nodes}"


def lacking(shortage: Shortage) -> list[str]:
    """The resources that no node has enough of; if there are none, those that all nodes together are short of; or,
    where other roles take them, what is not on every node anyway."""
    request = shortage.bundle.request
    alone = [name for name, amount in request.items() if shortage.largest.get(name, 0.0) < amount]
    together = [
        name for name, amount in request.items() if shortage.together.get(name, 0.0) < amount * shortage.wanted - 1e-6
    ]
    return sorted(alone or together or set(request) - set(ORDINARY) or request)


def _amounts(amounts: Mapping[str, float], names: Sequence[str]) -> str:
    def one(name: str) -> str:
        amount = amounts.get(name, 0.0)
        return f"{round(amount / 2**30, 1):g} GiB memory" if name == "memory" else f"{amount:g} {name}"

    return " and ".join(one(name) for name in names)


def _others(found: Sequence[Shortage]) -> str:
    rest = [f"{s.missing} {NAMES[s.role]}" for s in found[1:]]
    return f"; nor have {' and '.join(rest)}" if rest else ""
