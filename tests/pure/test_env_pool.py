"""Which env workers the pool removes first, with actors replaced by plain objects."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from orchestrator.actors.env_pool import EnvPool
from orchestrator.actors.fleet import Member
from sdpo.config import EnvConfig, EnvPlacement
from tests.fixtures.fleets import supervised

NOBODY_WAITS = EnvConfig(sandboxes_per_worker=1, idle_s=0.001)


async def no_preparation(member: Member) -> None:
    await asyncio.sleep(0)


def shrunk(nodes: list[str | None], kept: int, not_serving: tuple[int, ...] = ()) -> list[int]:
    """Return the indices of the members that stay when a pool on `nodes` shrinks to `kept`."""

    async def scenario() -> list[int]:
        async with asyncio.TaskGroup() as background:
            placement = EnvPlacement(min_workers=kept, max_workers=len(nodes), num_cpus=0)
            supervision = supervised(background, max_restarts=2, checkout_timeout_s=1.0)
            pool = EnvPool(
                NOBODY_WAITS,
                placement,
                "pool",
                spawn=lambda name, slot: object(),
                prepare=no_preparation,
                supervision=supervision,
            )
            while len(pool.members) < len(nodes):
                pool._add(f"env-{len(pool.members)}")
            for index, (member, node) in enumerate(zip(pool.members, nodes, strict=True)):
                member.serving = index not in not_serving
                pool._slots[member.actor_name].node_id = node
            members = list(pool.members)
            await asyncio.sleep(0.01)
            pool._shrink()
            pool.kill()
            return [i for i, m in enumerate(members) if m in pool.members and m not in pool._draining]

    return asyncio.run(scenario())


@pytest.fixture(autouse=True)
def _no_actor_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.kill", lambda handle: None)


def test_the_emptiest_nodes_become_free() -> None:
    nodes: list[Any] = ["a", "b", "c", "a", "c", "b", "a", "c", "a"]
    stay = shrunk(nodes, 4)
    assert Counter(nodes[i] for i in stay) == {"a": 4}
    assert Counter(nodes[i] for i in shrunk(nodes, 6)) == {"a": 4, "c": 2}


def test_workers_of_two_equally_full_nodes_go_node_by_node() -> None:
    nodes: list[Any] = ["a", "b"] * 8
    assert Counter(nodes[i] for i in shrunk(nodes, 8)) in ({"a": 8}, {"b": 8})


def test_workers_without_resources_go_first_and_starting_ones_next() -> None:
    nodes: list[Any] = ["a", "a", None, "b", "a", "b"]
    assert shrunk(nodes, 5, not_serving=(2, 4)) == [0, 1, 3, 4, 5]
    assert shrunk(nodes, 4, not_serving=(2, 4)) == [0, 1, 3, 5]


def test_a_thousand_workers_shrink_without_a_comparison_for_each_pair() -> None:
    calls = Counter[str]()

    class CountedPool(EnvPool):
        def _node(self, member: Member) -> str | None:
            calls["node"] += 1
            return super()._node(member)

    nodes: list[Any] = [f"node-{i % 125}" for i in range(1000)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "EnvPool", CountedPool)
        assert len(shrunk(nodes, 62)) == 62
    assert calls["node"] <= 3 * len(nodes)
