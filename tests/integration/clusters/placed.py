"""Nodes with stand-in GPUs, labels and env slots: where reservations land, what is refused, and what waits for room.

The actors are empty; what is tried is Ray's part and ours around it.
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

from orchestrator.admission import require_room
from orchestrator.bundles import bundles_of
from orchestrator.capacity_facts import gather_autoscaler, gather_cluster
from orchestrator.doctor.examine import examine
from orchestrator.learner_gang import LearnerGang
from orchestrator.ray_session import ray_session
from orchestrator.reach import require_answer
from orchestrator.room import Reservation, Room
from orchestrator.rooms import Rooms
from sdpo.config import RunConfig
from sdpo.errors import SdpoError
from tests.integration.clusters.attempts import until

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


class Lodger:
    def where(self) -> tuple[str, list[Any]]:
        return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()


def lodge(**options: Any) -> Any:
    return ray.remote(num_cpus=0)(Lodger).options(**options).remote()


def role_of(node_id: str) -> str:
    """By what the node offers."""
    node = next(n for n in ray.nodes() if n["NodeID"] == node_id)
    return str(node["Labels"].get("sdpo-role") or ("env" if "env_slot" in node["Resources"] else "head"))


def ours() -> list[str]:
    """Names of reservations that are not given back."""
    return sorted(g["name"] for g in placement_group_table().values() if g["state"] != "REMOVED")


async def separate(cluster: Cluster, engine_node: Any) -> dict[str, Any]:
    """Everybody in a place of its own; then an engine dies, then its node."""
    config = config_of(SEPARATE)
    gang, rooms = LearnerGang(config, "a-1"), Rooms("a-1", config.placement.rollout)
    envs = [Room(f"a-1/env-{i}", config.placement.env) for i in range(2)]
    learner, _ = gang.place_of(0)
    ranks = await learner.find_within(30)
    engine = lodge(**rooms.take("rollout-0").options)
    await rooms.find("rollout-0", 30)
    for env in envs:
        await env.find_within(30)
    first, gpus = ray.get(engine.where.remote())
    found: dict[str, Any] = {
        "reserved": ours(),
        "learner": [role_of(node) for node in ranks.values()],
        "rollout": (role_of(first), len(gpus)),
        "env": [role_of(str(env.node_id)) for env in envs],
    }
    ray.kill(engine)
    room = rooms.take("rollout-0-r1")
    again = lodge(**room.options)
    found["same_node"] = ray.get(again.where.remote())[0] == first
    found["same_reservation"] = ours() == found["reserved"]
    cluster.remove_node(engine_node, allow_graceful=False)
    cluster.add_node(num_cpus=2, num_gpus=2, labels=ENGINES)
    await until(room.is_lost, 30)
    moved = lodge(**rooms.take("rollout-0-r2").options)
    await rooms.find("rollout-0-r2", 30)
    second = ray.get(moved.where.remote())[0]
    found["moved"] = (second != first, role_of(second))
    gang.kill()
    rooms.close()
    for env in envs:
        env.give_back()
    await until(lambda: not ours(), 20)
    found["left"] = ours()
    return found


async def colocated() -> dict[str, Any]:
    """A rank, an engine and a teacher on one device."""
    config = config_of(COLOCATED)
    gang = LearnerGang(config, "b-1")
    rooms = {role: Rooms("b-1", config.placement.of(role), gang.place_of) for role in ("rollout", "teacher")}
    lodgers = [lodge(**r.take(f"{role}-0").options) for role, r in rooms.items()]
    reservation, bundle = gang.place_of(0)
    lodgers.append(lodge(num_gpus=0.4, scheduling_strategy=reservation.strategy(bundle)))
    seen = ray.get([lodger.where.remote() for lodger in lodgers], timeout=60)
    reserved = ours()
    for room in rooms.values():
        room.close()
    kept = ours()
    gang.kill()
    await until(lambda: not ours(), 20)
    return {"roles": [role_of(node) for node, _ in seen], "gpus": [g for _, g in seen], "names": [reserved, kept]}


async def held(other: Reservation, autoscaler: dict[str, Any]) -> None:
    """Until the nodes have told of it."""
    await other.find_within(20)
    await until(lambda: sum(n.free.get("GPU", 0) for n in gather_cluster(10, autoscaler).nodes) == 2, 30)


def waiting() -> dict[str, Any]:
    """Another run holds the learner's node for two seconds, then for longer than the deadline."""
    config, autoscaler = config_of(SEPARATE), gather_autoscaler(30)
    found: dict[str, Any] = {"autoscaler": autoscaler}

    def admit(timeout_s: float) -> float:
        began_s = time.monotonic()
        require_room(bundles_of(config), lambda: gather_cluster(10, autoscaler), "C", timeout_s=timeout_s)
        return time.monotonic() - began_s

    other = Reservation("other-1/learner", [{"GPU": 2}], LEARNERS)
    asyncio.run(held(other, autoscaler))
    try:
        admit(2.0)
    except SdpoError as error:
        found["late"] = [type(error).__name__, str(error)]
    threading.Timer(2.0, other.give_back).start()
    found["waited_s"] = admit(30.0)
    return found


def refused(placement: dict[str, Any]) -> list[Any]:
    """As a run is refused: the kind of error, its line and the seconds that it took."""
    began_s = time.monotonic()
    try:
        with ray_session(config_of(placement)):
            return ["started", "", 0.0]
    except SdpoError as error:
        return [type(error).__name__, str(error), time.monotonic() - began_s]


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and never says anything."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def unreachable() -> dict[str, Any]:
    found = {}
    with silent_server() as silent, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        addresses = {"silent": silent, "nobody": f"127.0.0.1:{unused.getsockname()[1]}"}
        for name, address in addresses.items():
            began_s = time.monotonic()
            try:
                require_answer(address, answer_timeout_s=3.0)
            except SdpoError as error:
                found[name] = [str(error).replace(address, "ADDRESS"), time.monotonic() - began_s]
    return found


def main() -> None:
    """Prints what happened as JSON on the last line."""
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
        story["doctor"] = [[f.name.partition(" ")[0], str(f.level), f.said] for f in found]
        story["unreachable"] = unreachable()
        print(json.dumps(story), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
