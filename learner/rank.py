"""One learner rank: a synchronous Ray actor that owns its shard of masters, AdamW and the teacher's average."""

import logging
import math
import socket
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist

from learner.backends import make_backend
from learner.backends.base import Backend
from learner.determinism import repeat_to_the_bit
from learner.direct import DirectSender, PolicySource, RolloutClient
from learner.ema import WeightEma
from learner.experiences import Attached, join
from learner.export import export_model
from learner.messages import LearnerInfo, OldLogProbsRequest, ScoreReceipt, TrainRequest
from learner.model import load_policy, pick_device, torch_dtype
from learner.old_log_probs import OldLogProbs
from learner.publish import manifest_of, probe_log_probs, weight_buckets
from learner.remote import exporting, loading, saving
from learner.step import Trainer
from sdpo.activity import Activity
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.logs import set_up_logging
from sdpo.memory import resident_bytes
from sdpo.stacks import answer_stack_requests
from sdpo.storage_cache import with_local_model
from sdpo.types import Int32, PolicyScores, Rollout, Version
from sdpo.weights import Stream, StreamTally, WeightBucket, WeightManifest

log = logging.getLogger(__name__)


class LearnerRank:
    """Every method but `address`, `ping` and `memory` is collective: call it on all ranks, then wait for all."""

    _backend: Backend
    _trainer: Trainer
    _old_log_probs: OldLogProbs
    _ema: WeightEma | None

    def __init__(self, config: RunConfig, rank: int, world_size: int) -> None:
        answer_stack_requests()
        set_up_logging(ray.get_runtime_context().get_actor_name() if ray.is_initialized() else None)
        self._doing, self._version = Activity(log), ""
        self._config, self._rank, self._world_size = config, rank, world_size
        self._dtype = torch_dtype(config.model.dtype)
        self._teacher_is_due = False
        self._direct: DirectSender | None = None
        self._meeting: socket.socket | None = None

    def __repr__(self) -> str:
        """Return `learner-rank0 v1.3 training`; the name alone before it has weights: Ray's logs and lists keep that
        one.
        """
        name = f"learner-rank{self._rank}"
        return f"{name} v{self._version} {self._doing}" if self._version else name

    def address(self) -> tuple[str, int]:
        """Return (ip, port) of this rank's node, where the ranks will meet; `setup` takes over the port, which is held
        until then. Ask rank 0.
        """
        self._meeting = socket.create_server(("", 0))
        return _address_of(self._meeting)

    def setup(self, master_addr: str, master_port: int, checkpoint_dir: str | None = None) -> LearnerInfo:
        """Join the gang, load the model and, if given, the checkpoint, a path or a URI.

        Raises `ModelError`, `CheckpointError` (one line) and `InfrastructureError` (no gang within `start_s`).
        """
        torch.set_num_threads(self._config.learner.num_threads)
        repeat_to_the_bit(self._config)
        torch.manual_seed(self._config.seed + self._rank)
        self._device = pick_device(self._config.placement.learner.num_gpus)
        self._config = with_local_model(self._config)
        hf_model = load_policy(self._config)
        self._join(master_addr, master_port)
        self._backend = make_backend(hf_model, self._config, self._device)
        rate = self._config.teacher.regularisation.average_rate if self._config.uses_teacher else None
        self._ema = None if rate is None else WeightEma(self._backend, rate)
        if checkpoint_dir is not None:
            with loading(checkpoint_dir, self._config.deadlines.start_s) as folder:
                self._backend.load(folder, self._average)
        self._trainer = Trainer(self._backend, self._config, self._device, self._after_step)
        self._old_log_probs = OldLogProbs(self._backend, self._config, self._device)
        return LearnerInfo(
            rank=self._rank,
            world_size=self._world_size,
            optimizer_step=self._backend.optimizer_step,
            num_parameters=sum(math.prod(shape) for shape in self._backend.tensor_shapes().values()),
            device=str(self._device),
            dtype=self._config.model.dtype,
        )

    def ping(self) -> None:
        """Answers: the rank is alive and done with what it was asked before."""

    def memory(self) -> dict[str, int]:
        """Return the resident `bytes` of this process; on a GPU also `gpu_bytes`, the most that torch has held there so
        far.
        """
        found = {"bytes": resident_bytes()}
        if self._device.type == "cuda":
            found["gpu_bytes"] = torch.cuda.max_memory_allocated(self._device)
        return found

    def train(self, request: TrainRequest, *objects: Rollout | Attached) -> dict[str, float]:
        """Take the optimizer steps of one rollout batch; `learner.messages.TrainRequest` describes `objects`,
        `Trainer.train` the metrics.

        Raises `InfrastructureError` if the objects do not belong together or the ranks' plans differ.
        """
        with self._doing("training", step=request.batch_index + 1):
            metrics = self._trainer.train(join(request, objects), request.mini_batches)
        self._teacher_is_due |= metrics["steps_taken"] > 0
        return metrics

    def compute_old_log_probs(
        self, request: OldLogProbsRequest, *rollouts: Rollout
    ) -> list[ScoreReceipt | PolicyScores]:
        """Score this rank's rollouts under the present policy, see `OldLogProbsRequest`.

        Raises `InfrastructureError` if the ranks' plans differ.
        """
        with self._doing("recalling", len(rollouts)):
            return self._old_log_probs.compute_old_log_probs(request, rollouts)

    def update_teacher(self) -> bool:
        """Move the teacher's average towards the masters where it moves once per rollout batch; not if no step was
        taken since the last time.
        """
        is_due, self._teacher_is_due = self._teacher_is_due, False
        if self._ema is None or self._moves_every_step or not is_due:
            return False
        self._ema.update()
        return True

    def publish(self, stream: Stream, version: Version, probe_ids: Int32) -> Iterator[WeightBucket | WeightManifest]:
        """Yield, on rank 0, buckets and at last the manifest; the other ranks take part and yield nothing.

        Tensors carry the names of the Hugging Face checkpoint, in the compute dtype; a tied head is sent once. The
        probe is scored with this stream's weights. The stream "teacher" of a live teacher is the policy's.
        """
        if stream == "teacher" and self._config.teacher.regularisation.stream is None:
            raise ValueError("a frozen teacher has no stream: it keeps the weights of model.path")
        self._version = str(version)
        with self._doing(f"publishing {stream}"):
            yield from self._publish(stream, version, probe_ids)

    def _publish(self, stream: Stream, version: Version, probe_ids: Int32) -> Iterator[WeightBucket | WeightManifest]:
        average = self._average if stream == "teacher" else None
        tally = StreamTally()
        tensors = self._backend.full_tensors(self._dtype, average)
        for bucket in weight_buckets(tensors, self._config.weights.bucket_bytes):
            if self._rank == 0:
                tally.add(bucket)
                yield bucket
        with nullcontext() if average is None else self._backend.swapped_in(average):
            log_probs = probe_log_probs(self._backend.forward, probe_ids, self._device)
        if self._rank == 0:
            yield manifest_of(tally, version, probe_ids, log_probs)

    def send_direct(
        self, version: Version, probe_ids: Int32, receivers: dict[str, Any]
    ) -> tuple[WeightManifest, dict[str, str]] | None:
        """Send the policy by vLLM's own transfer to `receivers` (rollout actors by name), which are in an update.

        The handshake is made again when they are not those of the last time. Rank 0 returns the manifest, and the
        first line of what went wrong by receiver; the other ranks take part and return None.
        """
        self._version = str(version)
        if self._direct is None or self._direct.receivers != receivers:
            self._leave_direct()
            source = PolicySource(self._backend, self._dtype)
            client = RolloutClient(
                receivers, self._config.placement.rollout.tensor_parallel, self._config.deadlines.weights_s
            )
            self._direct = DirectSender(self._config, self._rank, source, client, _free_address())
        tally, failed = self._direct.send()
        if failed:
            self._leave_direct()
        log_probs = probe_log_probs(self._backend.forward, probe_ids, self._device)
        return (manifest_of(tally, version, probe_ids, log_probs), failed) if self._rank == 0 else None

    def save(self, folder: str) -> None:
        """Write this rank's part of a resumable checkpoint to a path or a URI. Raises `CheckpointError`, one line."""
        with self._doing("saving"), saving(folder, self._config.deadlines.checkpoint_s) as local:
            self._backend.save(local, self._average)

    def export(self, folder: str, texts: Mapping[str, str] | None = None) -> None:
        """Write the policy as a Hugging Face folder in the compute dtype, with `texts` by file name beside it, to a
        path or a URI.
        """
        tensors = self._backend.full_tensors(self._dtype)
        with self._doing("exporting"), exporting(folder, self._config.deadlines.checkpoint_s) as local:
            export_model(local, self._config.model.path, tensors, self._dtype, texts)

    def close(self) -> None:
        """Leave the gang."""
        self._leave_direct()
        if "_backend" in vars(self):
            self._backend.close()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _after_step(self) -> None:
        """Move the average after an optimizer step where it moves then."""
        if self._ema is not None and self._moves_every_step:
            self._ema.update()

    @property
    def _moves_every_step(self) -> bool:
        return self._config.teacher.regularisation.average_moves == "optimizer_step"

    @property
    def _average(self) -> Mapping[str, torch.Tensor] | None:
        return None if self._ema is None else self._ema.tensors

    def _leave_direct(self) -> None:
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    def _join(self, master_addr: str, master_port: int) -> None:
        deadlines = self._config.deadlines
        longest_s = max(deadlines.train_s, deadlines.weights_s, deadlines.checkpoint_s, deadlines.start_s)
        timeout = timedelta(seconds=longest_s)
        meeting, self._meeting = self._meeting, None
        listen_fd = None if meeting is None else meeting.detach()
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined]  # torch's stubs leave it out of the names they export
                master_addr, master_port, self._world_size, self._rank == 0, timeout, master_listen_fd=listen_fd
            )
            dist.init_process_group(
                "gloo" if self._device.type == "cpu" else "cpu:gloo,cuda:nccl",
                store=store,
                rank=self._rank,
                world_size=self._world_size,
                timeout=timeout,
            )
        except RuntimeError as error:
            where = f"{master_addr}:{master_port}"
            raise InfrastructureError(f"learner-rank{self._rank} found no gang at {where}: {error}") from error


def _free_address() -> tuple[str, int]:
    """Return the ip of this node and a port that is free now."""
    with socket.create_server(("", 0)) as probe:
        return _address_of(probe)


def _address_of(server: socket.socket) -> tuple[str, int]:
    return str(ray.util.get_node_ip_address()), int(server.getsockname()[1])
