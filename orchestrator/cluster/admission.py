"""Admission of a run before it reserves anything: do its actors fit into the cluster now, later, or never?"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from orchestrator.cluster.bundles import Bundle
from orchestrator.cluster.capacity import ORDINARY, Cluster, Shortage, shortages
from orchestrator.cluster.reservation import describe, describe_amount, describe_labels
from sdpo.errors import InfrastructureError, PlacementError

log = logging.getLogger(__name__)

POLL_S = 1.0
NAMES = {"learner": "learner ranks", "rollout": "rollout workers", "env": "env workers", "teacher": "teachers"}


def require_capacity(
    bundles: Sequence[Bundle],
    look: Callable[[], Cluster],
    where: str,
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Return when all bundles fit at once, on free resources of nodes that are up or that an autoscaler adds.

    Raises `PlacementError` (exit code 2) at once if the whole cluster with nothing in use is too small, and
    `InfrastructureError` if the bundles do not fit after `timeout_s`; both name role, resource, request and what is
    available. A shortage that is not proven, or an autoscaler whose configuration cannot be read, is left to the
    reservations, which have deadlines of their own. `where`: the cluster in words.
    """
    began_s, has_warned = clock(), False
    while True:
        cluster = look()
        never = shortages(bundles, cluster.empty())
        if cluster.grows_unseen or not all(s.proven for s in never):
            if missing := shortages(bundles, cluster):
                log.warning("%s; waiting for nodes that may be added", sentence(missing[0], where))
            return
        if never:
            raise PlacementError(f"{sentence(never[0], where)}{_others(never)}")
        missing = shortages(bundles, cluster)
        if not missing:
            return
        holders = f"; held by {', '.join(cluster.holders)}" if cluster.holders else ""
        line = f"{sentence(missing[0], f'{where} now')}{holders}"
        if clock() - began_s >= timeout_s:
            raise InfrastructureError(f"{line}; not free within deadlines.start_s={timeout_s:g}")
        if not has_warned:
            log.warning("%s; waiting up to %g s for resources to become free", line, timeout_s)
            has_warned = True
        pause(POLL_S)


def sentence(shortage: Shortage, where: str) -> str:
    """Return `placement.learner: 2 of 4 learner ranks do not fit in …; each requests 2 GPU; available: …`."""
    bundle = shortage.bundle
    begin = (
        f"placement.{shortage.role}: {shortage.missing} of {shortage.wanted} {NAMES[shortage.role]} do not fit in "
        f"{where}; each requests {describe(bundle.request)}"
    )
    labels = f" with {describe_labels(bundle.labels)}" if bundle.labels else ""
    if shortage.num_nodes == 0:
        return f"{begin}{labels and f' on a node{labels}'}; allowed: no node{labels} is up or can be added"
    names = lacking(shortage)
    largest = _amounts(shortage.largest, names)
    together = _amounts(shortage.together, names)
    return f"{begin}; available: {largest} on the largest node{labels}, {together} on all {shortage.num_nodes}"


def lacking(shortage: Shortage) -> list[str]:
    """Return the resources of which no node has enough; else those of which all nodes together have too little; else,
    where other roles use them, the special ones.
    """
    request = shortage.bundle.request
    alone = [name for name, amount in request.items() if shortage.largest.get(name, 0.0) < amount]
    together = [
        name for name, amount in request.items() if shortage.together.get(name, 0.0) < amount * shortage.wanted - 1e-6
    ]
    return sorted(alone or together or set(request) - set(ORDINARY) or request)


def _amounts(amounts: Mapping[str, float], names: Sequence[str]) -> str:
    """Return the named amounts as text, those of 0 too."""
    return " and ".join(describe_amount(name, amounts.get(name, 0.0)) for name in names)


def _others(found: Sequence[Shortage]) -> str:
    rest = [f"{s.missing} {NAMES[s.role]}" for s in found[1:]]
    return f"; nor do {' and '.join(rest)}" if rest else ""
