"""Nodes with stand-in GPUs, labels and env slots: which node a reservation gets, which runs are refused or wait.

The actors are empty.
"""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from orchestrator.actors.learner_gang import LearnerGang
from orchestrator.cluster.admission import require_capacity
from orchestrator.cluster.bundles import bundles_of
from orchestrator.cluster.capacity_facts import gather_autoscaler, gather_cluster
from orchestrator.cluster.connect import require_answer
from orchestrator.cluster.ray_session import ray_session
from orchestrator.cluster.reservation import ActorSlot, MemberSlots, Reservation
from orchestrator.commands.doctor.examine import examine
from sdpo.config import RunConfig
from sdpo.errors import SdpoError
from tests.clusters.attempts import until

ENGINES, LEARNERS = {"sdpo-role": "rollout"}, {"sdpo-role": "learner"}
SEPARATE: dict[str, Any] = {
    "rollout": {"num_gpus": 2, "tensor_parallel": 2, "label_selector": ENGINES},
    "learner": {"num_gpus": 1, "ranks": 2, "label_selector": LEARNERS},
    "env": {"min_workers": 2, "max_workers": 9, "env_slots": 1},
}
COLOCATED: dict[str, Any] = {
    "mode": "colocated",
    "rollout": {"num_gpus": 0.4},
    "teacher": {"num_gpus": 0.2},
    "learner": {"num_gpus": 0.4, "label_selector": LEARNERS},
}


def config_of(placement: dict[str, Any], start_s: float = 3.0) -> RunConfig:
    return RunConfig.model_validate({"placement": placement, "deadlines": {"start_s": start_s}})


class EmptyActor:
    def where(self) -> tuple[str, list[Any]]:
        return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()


def create(**options: Any) -> Any:
    return ray.remote(num_cpus=0)(EmptyActor).options(**options).remote()


def role_of(node_id: str) -> str:
    """Return the role that the node's label or resources are for."""
    node = next(n for n in ray.nodes() if n["NodeID"] == node_id)
    return str(node["Labels"].get("sdpo-role") or ("env" if "env_slot" in node["Resources"] else "head"))


def ours() -> list[str]:
    """Return the names of reservations that are not released."""
    return sorted(g["name"] for g in placement_group_table().values() if g["state"] != "REMOVED")


async def separate(cluster: Cluster, engine_node: Any) -> dict[str, Any]:
    """All actors on nodes of their role; then an engine dies, then its node."""
    config = config_of(SEPARATE)
    gang, slots = LearnerGang(config, "a-1"), MemberSlots("a-1", config.placement.rollout)
    envs = [ActorSlot(f"a-1/env-{i}", config.placement.env) for i in range(2)]
    learner, _ = gang.bundle_of(0)
    ranks = await learner.wait_placed(30)
    engine = create(**slots.take("rollout-0").options)
    await slots.wait_placed("rollout-0", 30)
    for env in envs:
        await env.wait_placed(30)
    first, gpus = ray.get(engine.where.remote())
    found: dict[str, Any] = {
        "reserved": ours(),
        "learner": [role_of(node) for node in ranks.values()],
        "rollout": (role_of(first), len(gpus)),
        "env": [role_of(str(env.node_id)) for env in envs],
    }
    ray.kill(engine)
    slot = slots.take("rollout-0-r1")
    again = create(**slot.options)
    found["same_node"] = ray.get(again.where.remote())[0] == first
    found["same_reservation"] = ours() == found["reserved"]
    cluster.remove_node(engine_node, allow_graceful=False)
    cluster.add_node(num_cpus=2, num_gpus=2, labels=ENGINES)
    await until(slot.is_lost, 30)
    moved = create(**slots.take("rollout-0-r2").options)
    await slots.wait_placed("rollout-0-r2", 30)
    second = ray.get(moved.where.remote())[0]
    found["moved"] = (second != first, role_of(second))
    gang.kill()
    slots.close()
    for env in envs:
        env.release()
    await until(lambda: not ours(), 20)
    found["left"] = ours()
    return found


async def colocated() -> dict[str, Any]:
    """A rank, an engine and a teacher on one device."""
    config = config_of(COLOCATED)
    gang = LearnerGang(config, "b-1")
    slots = {role: MemberSlots("b-1", config.placement.of(role), gang.bundle_of) for role in ("rollout", "teacher")}
    actors = [create(**r.take(f"{role}-0").options) for role, r in slots.items()]
    reservation, bundle = gang.bundle_of(0)
    actors.append(create(num_gpus=0.4, scheduling_strategy=reservation.strategy(bundle)))
    seen = ray.get([actor.where.remote() for actor in actors], timeout=60)
    reserved = ours()
    for slot in slots.values():
        slot.close()
    kept = ours()
    gang.kill()
    await until(lambda: not ours(), 20)
    return {"roles": [role_of(node) for node, _ in seen], "gpus": [g for _, g in seen], "names": [reserved, kept]}


async def wait_reported(other: Reservation, autoscaler: dict[str, Any]) -> None:
    """Wait until the nodes have reported the reservation."""
    await other.wait_placed(20)
    await until(lambda: sum(n.free.get("GPU", 0) for n in gather_cluster(10, autoscaler).nodes) == 2, 30)


def waiting() -> dict[str, Any]:
    """Another run holds the learner's node for two seconds, then for longer than the deadline."""
    config, autoscaler = config_of(SEPARATE), gather_autoscaler(30)
    found: dict[str, Any] = {"autoscaler": autoscaler}

    def admit(timeout_s: float) -> float:
        began_s = time.monotonic()
        require_capacity(bundles_of(config), lambda: gather_cluster(10, autoscaler), "C", timeout_s=timeout_s)
        return time.monotonic() - began_s

    other = Reservation("other-1/learner", [{"GPU": 2}], LEARNERS)
    asyncio.run(wait_reported(other, autoscaler))
    try:
        admit(2.0)
    except SdpoError as error:
        found["late"] = [type(error).__name__, str(error)]
    threading.Timer(2.0, other.release).start()
    found["waited_s"] = admit(30.0)
    return found


def refused(placement: dict[str, Any]) -> list[Any]:
    """Return the kind of the error that refuses the run, its line, and the seconds until it came."""
    began_s = time.monotonic()
    try:
        with ray_session(config_of(placement)):
            return ["started", "", 0.0]
    except SdpoError as error:
        return [type(error).__name__, str(error), time.monotonic() - began_s]


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts connections and sends nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def unreachable() -> dict[str, Any]:
    found = {}
    with silent_server() as silent, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        addresses = {"silent": silent, "closed": f"127.0.0.1:{unused.getsockname()[1]}"}
        for name, address in addresses.items():
            began_s = time.monotonic()
            try:
                require_answer(address, answer_timeout_s=3.0)
            except SdpoError as error:
                found[name] = [str(error).replace(address, "ADDRESS"), time.monotonic() - began_s]
    return found


def main() -> None:
    """Print what happened as JSON on the last line."""
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": {"health_check_period_ms": 500}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        engine_node = cluster.add_node(num_cpus=2, num_gpus=2, labels=ENGINES)
        cluster.add_node(num_cpus=2, num_gpus=2, labels=LEARNERS)
        cluster.add_node(num_cpus=2, resources={"env_slot": 2})
        cluster.wait_for_nodes(60)
        story: dict[str, Any] = {
            "separate": asyncio.run(separate(cluster, engine_node)),
            "colocated": asyncio.run(colocated()),
        }
        story["waiting"] = waiting()
        ray.shutdown()
        os.environ["RAY_ADDRESS"] = cluster.address
        story["refused"] = {
            "gpus": refused(SEPARATE | {"learner": {"num_gpus": 1, "ranks": 3, "label_selector": LEARNERS}}),
            "label": refused(SEPARATE | {"teacher": {"label_selector": {"zone": "!in(a)", "sdpo-role": "teacher"}}}),
        }
        found = examine(config_of(SEPARATE), address=cluster.address)
        story["doctor"] = [[f.name.partition(" ")[0], str(f.level), f.message] for f in found]
        story["unreachable"] = unreachable()
        print(json.dumps(story), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
