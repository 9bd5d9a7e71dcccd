"""Packing the actors of a run into a cluster, and the line about those that do not fit."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from orchestrator.cluster import capacity_facts
from orchestrator.cluster.admission import require_capacity, sentence
from orchestrator.cluster.bundles import Bundle, bundles_of, matches
from orchestrator.cluster.capacity import Cluster, Node, NodeType, shortages
from orchestrator.cluster.capacity_facts import growth
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError, PlacementError

ROOT = Path(__file__).parents[2]
MANIFEST, RECIPES = ROOT / "deploy/kubernetes/raycluster.yaml", ROOT / "docs/placement.md"


def node(
    name: str = "n", labels: dict[str, str] | None = None, used: dict[str, float] | None = None, **has: float
) -> Node:
    free = {key: amount - (used or {}).get(key, 0.0) for key, amount in has.items()}
    return Node(name=name, total=has, free=free, labels=labels or {})


def cluster(*nodes: Node, types: Sequence[NodeType] = (), **more: Any) -> Cluster:
    given = {"more": sum(t.more for t in types)} | more
    return Cluster(nodes=nodes, types=tuple(types), **given)


def want(role: str, count: int, labels: dict[str, str] | None = None, **request: float) -> list[Bundle]:
    return [Bundle(role=role, request=request, labels=labels or {})] * count


def kind(name: str, more: int, labels: dict[str, str] | None = None, **resources: float) -> NodeType:
    return NodeType(name=name, resources=resources, labels=labels or {}, more=more)


FOUR_GPUS = node(CPU=16, GPU=4)


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ([], cluster()),
        (want("env", 8, CPU=0.25), cluster(node(CPU=2))),
        (want("learner", 2, GPU=1) + want("rollout", 1, GPU=2), cluster(FOUR_GPUS)),
        (want("rollout", 3, GPU=0.6) + want("teacher", 3, GPU=0.4), cluster(node(GPU=3))),
        (want("teacher", 2, GPU=0.5) + want("learner", 1, GPU=1), cluster(node(GPU=2))),
        # the large ones first, or the small ones take what only the others can use
        (want("teacher", 2, GPU=1) + want("rollout", 1, GPU=2), cluster(node(GPU=2), node(GPU=2))),
        # CPU actors keep off the node with GPUs, whose CPUs the learner needs
        (want("env", 2, CPU=2) + want("learner", 1, CPU=4, GPU=1), cluster(node(CPU=4, GPU=1), node(CPU=4))),
        # the most picky ones first
        (
            want("rollout", 1, GPU=1) + want("learner", 1, {"zone": "a"}, GPU=1),
            cluster(node(labels={"zone": "a"}, GPU=1), node(labels={"zone": "b"}, GPU=1)),
        ),
        # 6 = 3 + 3 and 6 = 2 + 2 + 2: the largest first into the fullest fails, another arrangement does not
        (
            want("rollout", 2, GPU=3) + want("learner", 3, GPU=2),
            cluster(node(GPU=6), node(GPU=6)),
        ),
        (want("env", 5, env_slot=1, CPU=0.5), cluster(types=[kind("cpu", 3, env_slot=2, CPU=1)])),
        (want("rollout", 2, {"pool": "gpu"}, GPU=1), cluster(types=[kind("g", 2, {"pool": "gpu"}, GPU=1)])),
        (want("learner", 1, memory=8 * 2**30), cluster(node(memory=8 * 2**30))),
        (want("env", 3000, env_slot=1), cluster(*[node(str(i), env_slot=60) for i in range(50)])),
    ],
)
def test_all_fit(wanted: list[Bundle], there: Cluster) -> None:
    assert shortages(wanted, there) == []


@pytest.mark.parametrize(
    ("wanted", "there", "role", "missing", "line"),
    [
        (
            want("rollout", 2, GPU=2),
            cluster(node(GPU=1), node(GPU=1), node(GPU=1)),
            "rollout",
            2,
            "placement.rollout: 2 of 2 rollout workers do not fit in C; each requests 2 GPU; available: 1 GPU on "
            "the largest node, 3 GPU on all 3",
        ),
        (
            want("learner", 4, GPU=1),
            cluster(node(GPU=2), node(GPU=1)),
            "learner",
            1,
            "placement.learner: 1 of 4 learner ranks do not fit in C; each requests 1 GPU; available: 2 GPU on the "
            "largest node, 3 GPU on all 2",
        ),
        (
            want("env", 2, {"pool": "env"}, env_slot=1),
            cluster(node(env_slot=8)),
            "env",
            2,
            "placement.env: 2 of 2 env workers do not fit in C; each requests 1 env_slot on a node with pool=env; "
            "allowed: no node with pool=env is up or can be added",
        ),
        # devices: three shares of .6 need three GPUs, though 1.8 of 2 are free
        (
            want("teacher", 3, GPU=0.6),
            cluster(node(GPU=2)),
            "teacher",
            1,
            "placement.teacher: 1 of 3 teachers do not fit in C; each requests 0.6 GPU; available: 2 GPU on the "
            "largest node, 2 GPU on all 1",
        ),
        (
            want("learner", 1, memory=16 * 2**30, CPU=1),
            cluster(node(memory=8 * 2**30, CPU=64)),
            "learner",
            1,
            "placement.learner: 1 of 1 learner ranks do not fit in C; each requests 1 CPU and 16 GiB memory; "
            "available: 8 GiB memory on the largest node, 8 GiB memory on all 1",
        ),
        # enough in all, never on one node
        (
            want("learner", 1, GPU=1, fast_disk=1),
            cluster(node(GPU=1), node(fast_disk=1)),
            "learner",
            1,
            "placement.learner: 1 of 1 learner ranks do not fit in C; each requests 1 GPU and 1 fast_disk; "
            "available: 1 GPU and 1 fast_disk on the largest node, 1 GPU and 1 fast_disk on all 2",
        ),
        (want("env", 300, env_slot=1), cluster(node(env_slot=299)), "env", 1, ""),
    ],
)
def test_what_does_not_fit_is_named_with_a_proof(
    wanted: list[Bundle], there: Cluster, role: str, missing: int, line: str
) -> None:
    found = shortages(wanted, there)
    assert [(s.role, s.missing, s.proven) for s in found] == [(role, missing, True)]
    assert not line or sentence(found[0], "C") == line


def test_a_shortage_of_several_roles_together_is_named_and_not_proven() -> None:
    """Nodes that may be added: two types, but four nodes in all for five actors."""
    wanted = want("env", 4, env_slot=1) + want("rollout", 1, GPU=1)
    (found,) = shortages(wanted, cluster(types=[kind("cpu", 4, env_slot=1), kind("gpu", 4, GPU=1)], more=4))
    assert (found.role, found.missing, found.proven) == ("env", 1, False)
    assert sentence(found, "C") == (
        "placement.env: 1 of 4 env workers do not fit in C; each requests 1 env_slot; available: 1 env_slot on the "
        "largest node, 4 env_slot on all 4"
    )


def test_a_packing_that_fails_is_fast_and_not_taken_for_a_proof() -> None:
    """Shares that are a little more than a third: the sum fits, no arrangement does, and there are very many."""
    wanted = [Bundle(role="teacher", request={"GPU": 0.34 + i / 1000}, labels={}) for i in range(21)]
    began_s = time.monotonic()
    found = shortages(wanted, cluster(node(GPU=10)))
    assert found[0].missing == 1
    assert not found[0].proven
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize(
    ("selector", "holds"),
    [("gpu", True), ("cpu", False), ("!cpu", True), ("!gpu", False), ("in(cpu, gpu)", True), ("!in(gpu)", False)],
)
def test_label_selectors(selector: str, holds: bool) -> None:
    assert matches({"pool": "gpu"}, {"pool": selector}) is holds


def test_a_label_that_a_node_lacks_is_unlike_every_value() -> None:
    assert matches({}, {"pool": "!gpu"})
    assert not matches({}, {"pool": "gpu"})
    assert not matches({"pool": "gpu"}, {"pool": "gpu", "zone": "a"})


def test_bundles_of_a_run() -> None:
    roles = {
        "learner": {"ranks": 2, "num_gpus": 0.4, "num_cpus": 1, "label_selector": {"pool": "gpu"}},
        "rollout": {"workers": 3, "num_gpus": 0.2, "num_cpus": 1},
        "teacher": {"workers": 1, "num_gpus": 0.1, "num_cpus": 0},
        "env": {"min_workers": 2, "max_workers": 5, "env_slots": 1},
    }
    config = RunConfig.model_validate({"placement": {"mode": "colocated", **roles}})
    found = bundles_of(config)
    assert [b.role for b in found] == ["learner", "learner", "env", "env"]
    assert [b.request for b in found[:2]] == [
        {"GPU": pytest.approx(0.9), "CPU": 3.0},
        {"GPU": pytest.approx(0.6), "CPU": 2.0},
    ]
    assert found[0].labels == {"pool": "gpu"}
    assert len(bundles_of(config, most_env_workers=True)) == 7
    apart = bundles_of(config, has_learner=False)
    assert [b.role for b in apart] == ["rollout"] * 3 + ["env"] * 2, "without a learner they live by themselves"


class Clock:
    """Time passes only in `pause`; `look` answers what is there after so many looks."""

    def __init__(self, *seen: Cluster) -> None:
        self.now_s, self.seen = 0.0, list(seen)

    def __call__(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds

    def look(self) -> Cluster:
        return self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]


def admit(wanted: list[Bundle], clock: Clock, timeout_s: float = 5.0) -> None:
    require_capacity(wanted, clock.look, "C", timeout_s=timeout_s, clock=clock, pause=clock.pause)


def test_a_wait_ends_when_another_run_releases_its_resources() -> None:
    full, free = cluster(node(GPU=2, used={"GPU": 2})), cluster(node(GPU=2))
    clock = Clock(full, full, full, free)
    admit(want("learner", 2, GPU=1), clock)
    assert clock.now_s == 3.0


def test_a_wait_that_does_not_end_names_the_runs_that_hold_resources() -> None:
    full = cluster(node(GPU=2, used={"GPU": 1.5}), holders=("other-1",))
    with pytest.raises(InfrastructureError) as error:
        admit(want("learner", 1, GPU=1), Clock(full))
    assert str(error.value) == (
        "placement.learner: 1 of 1 learner ranks do not fit in C now; each requests 1 GPU; available: 0.5 GPU on "
        "the largest node, 0.5 GPU on all 1; held by other-1; not free within deadlines.start_s=5"
    )


def test_what_can_never_fit_is_refused_at_once() -> None:
    clock = Clock(cluster(node(GPU=1)))
    with pytest.raises(PlacementError, match=r"placement\.learner: 2 of 2 .* 2 GPU; available: 1 GPU .*; nor do 1 env"):
        admit(want("learner", 2, GPU=2) + want("env", 1, env_slot=1), clock)
    assert clock.now_s == 0.0


def test_an_autoscaler_that_cannot_be_read_is_given_its_time() -> None:
    admit(want("learner", 2, GPU=2), Clock(cluster(grows_unseen=True)))


def test_the_node_groups_of_kubernetes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray's own reading of our manifest; the API server is a stand-in."""
    manifest: dict[str, Any]
    (manifest,) = [d for d in yaml.safe_load_all(MANIFEST.read_text()) if d["kind"] == "RayCluster"]
    manifest["metadata"].setdefault("namespace", "default")
    asked = list[str]()

    def client(namespace: str) -> SimpleNamespace:
        def get(path: str) -> dict[str, Any]:
            asked.append(f"{namespace}/{path}")
            return manifest

        return SimpleNamespace(get=get)

    (tmp_path / "namespace").write_text("default\n")
    monkeypatch.setattr("ray.autoscaler._private.kuberay.node_provider.KubernetesHttpApiClient", client)
    monkeypatch.setattr(capacity_facts, "KUBERNETES_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("RAY_CLUSTER_NAME", "sdpo")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    types, more, unseen = growth(capacity_facts.read_autoscaler("10.0.0.2:6379"), {})
    assert asked == ["default/rayclusters/sdpo"]
    assert not unseen
    groups = {g["groupName"]: g for g in manifest["spec"]["workerGroupSpecs"]}
    assert {t.name: t.more for t in types} == {name: g["maxReplicas"] for name, g in groups.items()}
    assert more == sum(g["maxReplicas"] for g in groups.values())
    assert [t.name for t in types if t.resources.get("env_slot")] == ["cpu-env"]
    manifest["spec"]["enableInTreeAutoscaling"] = False
    assert growth(capacity_facts.read_autoscaler("10.0.0.2:6379"), {}) == ((), 0, False)


@pytest.mark.parametrize("recipe", re.findall(r"```yaml\n(.*?)```", RECIPES.read_text(), re.DOTALL))
def test_the_recipes_are_run_files(recipe: str) -> None:
    assert bundles_of(RunConfig.model_validate(yaml.safe_load(recipe)))


def test_what_an_autoscaler_may_add() -> None:
    config = {
        "head_node_type": "head",
        "max_workers": 5,
        "available_node_types": {
            "head": {"resources": {"CPU": 8}, "max_workers": 0},
            "gpu": {"resources": {"GPU": 4, "CPU": 32}, "labels": {"pool": "gpu"}, "max_workers": 2},
            "env": {"resources": {"env_slot": 8, "CPU": 8}},
            "full": {"resources": {"CPU": 1}, "max_workers": 1},
        },
    }
    types, more, unseen = growth(config, {"head": 1, "gpu": 1, "full": 1})
    assert (more, unseen) == (3, False)
    assert types == (kind("gpu", 1, {"pool": "gpu"}, GPU=4, CPU=32), kind("env", 5, env_slot=8, CPU=8))
    assert growth({}, {}) == ((), 0, False)
    assert growth({"unseen": True}, {}) == ((), 0, True)
    bare = {"max_workers": 2, "available_node_types": {"local": {"max_workers": 2}}}
    assert growth(bare, {}) == ((), 2, True), "a type that does not say what it has"
