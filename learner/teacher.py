"""The teacher: a synchronous Ray actor that scores students' tokens under hindsight prompts. Stateless."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from learner.batch import ScoringItem, make_batch, support_ids_of
from learner.messages import ScoreReceipt
from learner.model import load_causal_lm, pick_device, torch_dtype
from learner.packing import plan_micro_batches
from learner.publish import probe_log_probs
from learner.scoring import ScoringModel, TokenLogProbs
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError, WeightSyncError
from sdpo.stacks import answer_stack_requests
from sdpo.types import HindsightPrompt, Rollout, TeacherScores, Version
from sdpo.weights import StreamTally, WeightAudit, WeightBucket, WeightManifest


class TeacherWorker:
    """Holds the teacher's weights in the compute dtype and offers `sdpo.weights.WeightReceiver`."""

    _model: ScoringModel
    _tally: StreamTally
    _coming: Version | None

    def __init__(self, config: RunConfig, index: int) -> None:
        answer_stack_requests()
        self._config, self._index = config, index
        self._version: Version | None = None

    def start(self, version: Version | None = None) -> None:
        """Load `model.path`. `version` is what its weights count as; without one, the worker serves only after an
        update. Raises `ModelError`, one line.
        """
        torch.set_num_threads(self._config.teacher.num_threads)
        self._device = pick_device(self._config.teacher.num_gpus)
        hf_model = load_causal_lm(self._config.model.path, torch_dtype(self._config.model.dtype))
        model = ScoringModel(hf_model, self._config.learner.logits_chunk_tokens)
        self._model = model.requires_grad_(False).to(self._device)
        self._parameters = dict(hf_model.named_parameters())
        self._version = version

    def begin_update(self, version: Version) -> None:
        """From here until `finish_update` has succeeded, `score` refuses."""
        self._version, self._coming = None, version
        self._tally, self._absent = StreamTally(), set(self._parameters)

    def receive_bucket(self, bucket: WeightBucket) -> None:
        """Copy a bucket's tensors into the model. Raises `WeightSyncError` on damage, disorder or a wrong tensor."""
        self._tally.add(bucket)
        for spec in bucket.specs:
            parameter = self._parameters.get(spec.name)
            held = None if parameter is None else (str(parameter.dtype).removeprefix("torch."), tuple(parameter.shape))
            if parameter is None or held != (spec.dtype, spec.shape) or spec.name not in self._absent:
                raise WeightSyncError(f"teacher-{self._index}: unexpected tensor {spec.name} {spec.dtype} {spec.shape}")
            raw = torch.from_numpy(bucket.data[spec.offset : spec.offset + spec.num_bytes].copy())
            parameter.data.copy_(raw.view(parameter.dtype).view(spec.shape))
            self._absent.remove(spec.name)

    def finish_update(self, manifest: WeightManifest) -> WeightAudit:
        """Raises `WeightSyncError` unless everything arrived and the probe scores as it did at the sender."""
        self._tally.check(manifest)
        if self._absent or manifest.version != self._coming:
            raise WeightSyncError(
                f"teacher-{self._index}: update {self._coming} ended as {manifest.version}, absent: {len(self._absent)}"
            )
        difference = np.abs(probe_log_probs(self._model, manifest.probe_ids, self._device) - manifest.probe_log_probs)
        audit = WeightAudit(
            version=manifest.version,
            num_bytes=manifest.num_bytes,
            max_abs_diff=float(difference.max()),
            mean_abs_diff=float(difference.mean()),
        )
        if not audit.max_abs_diff <= self._config.weights.audit_tolerance:
            raise WeightSyncError(
                f"teacher-{self._index}: probe off by {audit.max_abs_diff:.3g} nats at {audit.version}"
            )
        self._version, self._coming = manifest.version, None
        return audit

    def score(
        self, version: Version, temperature: float, hindsights: Sequence[HindsightPrompt], *rollouts: Rollout
    ) -> list[ScoreReceipt | TeacherScores]:
        """A receipt, then the scores of each rollout's response tokens under its hindsight prompt, in order.

        Raises `InfrastructureError` if the weights held are not `version` or a rollout carries no support.
        """
        if version != self._version:
            raise InfrastructureError(f"teacher-{self._index} holds weights {self._version}, asked for {version}")
        began = time.perf_counter()
        items = [_item(h, r) for h, r in zip(hindsights, rollouts, strict=True)]
        lengths = [item.num_tokens for item in items]
        scores: list[TeacherScores | None] = [None] * len(items)
        (forwards,) = plan_micro_batches(lengths, 1, self._config.teacher.tokens_per_forward)
        for indices in forwards:
            if indices:
                for i, found in zip(indices, self._forward([items[i] for i in indices], temperature), strict=True):
                    scores[i] = _scores(rollouts[i], found, version)
        receipt = ScoreReceipt(version=version, num_tokens=sum(lengths), seconds=time.perf_counter() - began)
        return [receipt, *(s for s in scores if s is not None)]

    @torch.inference_mode()
    def _forward(self, items: list[ScoringItem], temperature: float) -> list[TokenLogProbs]:
        batch = make_batch(items, self._device)
        together = self._model(batch.input_ids, batch.positions, batch.sampled_ids, batch.support_ids, temperature)
        fields = [part.cpu().split(list(batch.counts)) for part in together]
        return [TokenLogProbs(*parts) for parts in zip(*fields, strict=True)]


def _item(hindsight: HindsightPrompt, rollout: Rollout) -> ScoringItem:
    if (hindsight.task_id, hindsight.sample_index) != (rollout.task_id, rollout.sample_index):
        raise InfrastructureError(
            f"hindsight prompt of {hindsight.task_id}#{hindsight.sample_index} came with "
            f"rollout {rollout.task_id}#{rollout.sample_index}"
        )
    response_ids = rollout.response_ids
    return ScoringItem(
        context_ids=hindsight.token_ids,
        response_ids=response_ids,
        keep=np.ones(len(response_ids), np.bool_),
        support_ids=support_ids_of(rollout),
    )


def _scores(rollout: Rollout, found: TokenLogProbs, version: Version) -> TeacherScores:
    assert found.support is not None
    assert found.tail is not None
    return TeacherScores(
        task_id=rollout.task_id,
        sample_index=rollout.sample_index,
        support_log_probs=found.support.numpy(),
        tail_log_probs=found.tail.numpy(),
        sampled_log_probs=found.sampled.numpy(),
        version=version,
    )
