"""The training loop on one page. Every step of a batch has a file of its own:

| step | file | what happens |
|---|---|---|
| start batch | `batch/producer.py` | each task becomes a group as soon as the staleness gate opens |
| sample, judge | `batch/attempts.py` | rollout workers write attempts, env workers answer with reward and feedback |
| look back | `batch/pipeline.py` | each attempt gets a hindsight prompt, by `sdpo/reprompt.py` |
| score | `actors/teacher_client.py` | teachers score the attempts under these prompts |
| collect | `batch/collect.py` | the loop waits for all groups of the batch |
| train, publish | `batch/update.py` | the learner takes its steps (`learner/step.py`), actors get its weights |
| record | `recorder.py` | metrics, samples, alarms and, when due, a checkpoint |

Two tasks share a bounded buffer of finished groups: the producer, which is at most `batch.max_staleness` batches ahead,
and the consumer, `train`. If one of the two fails, the run ends.
"""

import asyncio
import time

from orchestrator.actors.run_actors import RunActors
from orchestrator.batch.collect import GroupBuffer, collect_batch
from orchestrator.batch.pipeline import GroupPipeline
from orchestrator.batch.producer import StalenessGate, produce
from orchestrator.batch.step_metrics import batch_metrics, time_metrics
from orchestrator.batch.update import train_and_publish
from orchestrator.inputs.task_source import TaskOrder
from orchestrator.recorder import RunRecorder
from sdpo.types import Version


async def train(
    actors: RunActors,
    pipeline: GroupPipeline,
    tasks: TaskOrder,
    recorder: RunRecorder,
    *,
    incarnation: int,
    steps_done: int,
    stop: asyncio.Event,
) -> int:
    """Train until `config.steps` batches are done or `stop` is set; return the number of steps that are done."""
    config = actors.config
    gate = StalenessGate(config.batch.max_staleness, steps_done)
    buffer = GroupBuffer(config.batch.tasks * (config.batch.max_staleness + 1))
    batches = range(steps_done, config.steps)
    async with asyncio.TaskGroup() as running:
        # Start batch, sample, judge, look back, score: group by group, as far ahead as the gate allows.
        producer = running.create_task(produce(batches, tasks, pipeline, gate, lambda: actors.teacher_version, buffer))
        for batch_index in batches:
            started_s = time.monotonic()
            groups = await collect_batch(buffer, config, batch_index)
            collected_s = time.monotonic()
            metrics = batch_metrics(groups, advantage_is_signal=config.trains_on_unscored) | time_metrics(groups)
            version = Version(incarnation=incarnation, batch=batch_index + 1)
            metrics |= await train_and_publish(actors, batch_index, groups, version)
            steps_done = batch_index + 1
            metrics |= await recorder.evaluate_if_due(steps_done)
            if not stop.is_set():
                gate.publish(steps_done)
            metrics |= await actors.envs.figures()
            metrics["time/collect_s"] = collected_s - started_s
            metrics["time/step_s"] = time.monotonic() - started_s
            await recorder.record(steps_done, groups, metrics)
            if stop.is_set():
                producer.cancel()
                break
    return steps_done
