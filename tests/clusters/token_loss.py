"""Attempts in two turns; the node with the engine that sampled the first turns is lost between the two.

Engine and env workers are stand-ins that are real actors; what is tried is how Ray loses the tokens, and what follows.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster
from transformers import AutoTokenizer

from env_workers.environment import Exchange, Observation, Reply
from examples.tinycoder.make_tasks import FOLDER
from orchestrator.actors.env_client import EnvClient
from orchestrator.actors.fleet import Fleet, Member
from orchestrator.actors.sampler import StreamingSampler
from orchestrator.batch.attempts import Attempts
from orchestrator.batch.requests import AttemptRequest
from orchestrator.group import AttemptRecord
from rollout_workers.turns import merge_turn, turn_prompt
from sdpo.config import RunConfig
from sdpo.types import (
    FinishReason,
    GenerationRequest,
    Message,
    Rollout,
    RolloutHeader,
    SamplingParams,
    Segment,
    Task,
    TurnRequest,
    Verdict,
    Version,
)
from tests.fixtures.fleets import supervised

NUM_ATTEMPTS, TOKENS, TURN_END = 4, 50_000, 2
"""A turn has too many tokens for a message, so they are in the object store of the engine's node."""
TASK = Task(id="t", messages=(Message(role="user", content="?"),), environment="code", payload={})


class Engine:
    """Says its seed, over and over. `calls`: the seeds of first turns and of second ones."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    async def generate(self, request: GenerationRequest) -> AsyncIterator[RolloutHeader | Rollout]:
        for index, seed in zip(request.sample_indices, request.seeds, strict=True):
            self.calls.append(("first", seed))
            for part in self._say(request, index, seed):
                yield part

    async def extend(self, turn: TurnRequest, previous: Rollout) -> AsyncIterator[RolloutHeader | Rollout]:
        self.calls.append(("second", int(previous.response_ids[0])))
        for part in merge_turn(turn, previous, *self._say(turn_prompt(turn, previous), turn.sample_index, turn.seed)):
            yield part

    async def heard(self) -> list[tuple[str, int]]:
        return self.calls

    def _say(self, request: GenerationRequest, index: int, seed: int) -> tuple[RolloutHeader, Rollout]:
        ids = np.full(TOKENS, seed, np.int32)
        segment = Segment(author="model", token_ids=ids, log_probs=np.zeros(TOKENS, np.float32))
        header = RolloutHeader(
            task_id="t",
            sample_index=index,
            text="words",
            reply="words",
            num_prompt_tokens=len(request.prompt_ids),
            num_response_tokens=TOKENS,
            num_environment_tokens=0,
            num_turns=1,
            last_token_id=TURN_END,
            finish_reason=FinishReason.STOP,
            versions=(Version(incarnation=1, batch=0),),
        )
        rollout = Rollout(
            task_id="t",
            sample_index=index,
            prompt_ids=request.prompt_ids,
            segments=(segment,),
            finish_reason=FinishReason.STOP,
        )
        return header, rollout


class TwoTurns:
    """Asks for two turns of the model; the node is lost before its first answer."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.num_waiting = 0

    async def waiting(self) -> int:
        return self.num_waiting

    async def lose(self) -> None:
        self.lost.set()

    async def step(
        self, attempt: str, task: Task, history: tuple[Exchange, ...], reply: Reply, batch_index: int | None
    ) -> Any:
        self.num_waiting += 1
        await self.lost.wait()
        if history:
            return Verdict(reward=1.0, success=True, kind="passed", details={"attempt": attempt})
        return Observation(messages=(Message(role="user", content="Once more."),))

    async def forget(self, attempt: str) -> None: ...


async def until(client: Any, num_waiting: int) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(30):
        while await client.waiting.remote() < num_waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def play(cluster: Cluster, engine_node: Any) -> dict[str, Any]:
    """Return what happened, for the test."""
    where = iter([{"resources": {"engine": 1}}])

    async def prepare(member: Member) -> None:
        await asyncio.wait_for(member.handle.__ray_ready__.remote(), 60)

    def fleet(role: str, spawn: Any, background: asyncio.TaskGroup) -> Fleet:
        return Fleet(
            role,
            1,
            spawn=spawn,
            prepare=prepare,
            max_load=100,
            supervision=supervised(background, checkout_timeout_s=60),
        )

    async with asyncio.TaskGroup() as background:
        engines = fleet("rollout", lambda name: ray.remote(Engine).options(**next(where, {})).remote(), background)
        worlds = fleet("env", lambda name: ray.remote(TwoTurns).options(max_concurrency=100).remote(), background)
        await engines.start()
        await worlds.start()
        first, client = engines.members[0].handle, worlds.members[0].handle
        config = RunConfig.model_validate({"env": {"retry_backoff_s": 0.01}})
        sampler = StreamingSampler(engines, 30)
        tokenizer = AutoTokenizer.from_pretrained(FOLDER.parent / "model", local_files_only=True)
        attempts = Attempts(config, tokenizer, sampler, partial(EnvClient, worlds, config))
        generation = GenerationRequest(
            task_id="t",
            prompt_ids=np.zeros(3, np.int32),
            sample_indices=tuple(range(NUM_ATTEMPTS)),
            seeds=tuple(range(100, 100 + NUM_ATTEMPTS)),
            sampling=SamplingParams(temperature=1.0, max_tokens=4 * TOKENS),
            support_size=0,
        )
        request = AttemptRequest(task=TASK, generation=generation, label="train-0", batch_index=0)
        running: list[asyncio.Task[AttemptRecord]] = []
        async for header, rollout in sampler.sample(generation):
            running.append(background.create_task(attempts.play(request, header, rollout)))
            await asyncio.sleep(1.0)  # Ray brings what is waited for to the caller's node: only the first one
        await until(client, NUM_ATTEMPTS)
        before = await first.heard.remote()
        cluster.remove_node(engine_node, allow_graceful=False)
        client.lose.remote()
        played = await asyncio.wait_for(asyncio.gather(*running), 100)
        rollouts = ray.get([p.rollout for p in played], timeout=30)
        return {
            "before": before,
            "after": await engines.members[0].handle.heard.remote(),
            "verdicts": [[p.header.sample_index, p.verdict.kind, p.verdict.details.get("attempt")] for p in played],
            "segments": [[[s.author, len(s.token_ids)] for s in r.segments] for r in rollouts],
            "first_tokens": [int(r.response_ids[0]) for r in rollouts],
        }


def main() -> None:
    """Print what happened as JSON on a line of its own."""
    head = {"num_cpus": 2, "include_dashboard": False, "_system_config": {"health_check_period_ms": 500}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        engine_node = cluster.add_node(num_cpus=1, resources={"engine": 1})
        cluster.wait_for_nodes(60)
        print(json.dumps(asyncio.run(play(cluster, engine_node))), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
