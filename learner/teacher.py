"""The teacher: a synchronous Ray actor that scores students' tokens under hindsight prompts. Stateless.

It may hold two models: the current one, which its weight stream moves, and the initial one, which nothing moves.
"""

import logging
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import ray
import torch

from learner.batch import ScoringItem, make_batch, support_ids_of, whole_response
from learner.determinism import repeat_to_the_bit
from learner.messages import ScoreReceipt
from learner.model import load_causal_lm, pick_device, torch_dtype
from learner.packing import plan_micro_batches
from learner.publish import probe_log_probs
from learner.scoring import ScoreRequest, ScoringModel, TokenLogProbs, mixed_forward
from sdpo.activity import Activity
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError, WeightSyncError
from sdpo.logs import set_up_logging
from sdpo.memory import resident_bytes
from sdpo.objectives.base import SupportSource
from sdpo.stacks import answer_stack_requests
from sdpo.storage_cache import with_local_model
from sdpo.types import HindsightPrompt, Int32, PolicyScores, ReferenceScores, Rollout, TeacherScores, Version
from sdpo.weights import StreamTally, WeightAudit, WeightBucket, WeightManifest, audit_probe

log = logging.getLogger(__name__)

INITIAL = Version(incarnation=0, batch=0)
"""The version of `model.path`, as the receipts of `TeacherWorker.reference` name it."""

SupportMode = Literal["given", "top_k", "full"] | None


class TeacherWorker:
    """Holds its models in the compute dtype and takes a stream of weights, see `sdpo.weights`.

    EMA and live: the current model. Frozen: the initial one. Trust region: both (paper, Table 4). A reference KL needs
    the initial one in any case.
    """

    _initial: ScoringModel | None
    _current: ScoringModel | None
    _tally: StreamTally
    _coming: Version | None

    def __init__(self, config: RunConfig, index: int) -> None:
        answer_stack_requests()
        actor = ray.get_runtime_context().get_actor_name() if ray.is_initialized() else None
        set_up_logging(actor)
        self._name, self._doing = actor or f"teacher-{index}", Activity(log)
        self._config, self._index = config, index
        self._support = support_mode(config)
        self._version: Version | None = None
        self._coming = None

    def __repr__(self) -> str:
        """Return `teacher-0 v1.3 scoring 8`; before it has weights the name alone, which Ray's lists keep."""
        if self._version is not None:
            return f"{self._name} v{self._version} {self._doing}"
        return self._name if self._coming is None else f"{self._name} takes v{self._coming}"

    def start(self, version: Version | None = None) -> None:
        """Load `model.path`, twice where both models are needed. `version` is what its weights count as; without one,
        the worker scores in hindsight only after an update. Raises `ModelError`, one line.
        """
        config = self._config = with_local_model(self._config)
        torch.set_num_threads(config.teacher.num_threads)
        repeat_to_the_bit(config)
        self._device = pick_device(config.placement.teacher.num_gpus)
        moves, mixes = config.teacher_stream is not None, config.teacher.regularisation.mixes
        self._current = self._load() if moves else None
        self._initial = self._load() if not moves or mixes or config.uses_reference else None
        self._parameters = {} if self._current is None else dict(self._current.hf_model.named_parameters())
        self._version = version

    def memory(self) -> dict[str, int]:
        """Return the resident `bytes` of this process."""
        return {"bytes": resident_bytes()}

    def begin_update(self, version: Version) -> None:
        """Begin an update; `score` refuses until `finish_update` has succeeded."""
        self._version, self._coming = None, version
        self._tally, self._absent = StreamTally(), set(self._parameters)

    def receive_bucket(self, bucket: WeightBucket) -> None:
        """Copy a bucket's tensors into the current model. Raises `WeightSyncError` on damage, disorder or a wrong
        tensor.
        """
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
        """Raises `WeightSyncError` unless everything arrived and the current model scores the probe as the sender."""
        self._tally.check(manifest)
        if self._absent or self._current is None or manifest.version != self._coming:
            raise WeightSyncError(
                f"teacher-{self._index}: update {self._coming} ended as {manifest.version}, absent: {len(self._absent)}"
            )
        scored = probe_log_probs(self._current, manifest.probe_ids, self._device)
        try:
            audit = audit_probe(manifest, scored, self._config)
        except WeightSyncError as error:
            raise WeightSyncError(f"teacher-{self._index}: {error}") from None
        self._version, self._coming = manifest.version, None
        log.info("took the weights of v%s, %d bytes", audit.version, audit.num_bytes)
        return audit

    def score(
        self,
        version: Version,
        temperature: float,
        hindsights: Sequence[HindsightPrompt],
        *objects: Rollout | PolicyScores,
    ) -> list[ScoreReceipt | TeacherScores]:
        """Return a receipt, then the scores of each rollout's response tokens under its hindsight prompt, in order.

        `objects`: a rollout for each hindsight prompt; with `support: student` then as many `PolicyScores`. Raises
        `InfrastructureError` if the weights held are not `version`, or the objects do not belong together.
        """
        if version != self._version:
            raise InfrastructureError(f"teacher-{self._index} holds weights {self._version}, asked for {version}")
        began, count = time.perf_counter(), len(hindsights)
        rollouts = [o for o in objects if isinstance(o, Rollout)]
        policies = [o for o in objects if isinstance(o, PolicyScores)]
        if len(rollouts) != count or len(policies) != (count if self._config.scores_after_old_log_probs else 0):
            raise InfrastructureError(
                f"{count} hindsight prompts came with {len(rollouts)} rollouts and {len(policies)} policy scores"
            )
        for hindsight, rollout in zip(hindsights, rollouts, strict=True):
            _require_same(hindsight, rollout)
        supports = self._given_supports(rollouts, policies)
        items = [
            whole_response(h.token_ids, r.response_ids, s)
            for h, r, s in zip(hindsights, rollouts, supports, strict=True)
        ]
        tasks = {h.task_id for h in hindsights}
        with self._doing("scoring", count, task=tasks.pop() if len(tasks) == 1 else None):
            found = self._forward(self._hindsight_models(), items, temperature, self._support)
        scores = [_teacher_scores(r, f, version, self._support) for r, f in zip(rollouts, found, strict=True)]
        return [_receipt(version, items, began), *scores]

    def reference(self, temperature: float, *rollouts: Rollout) -> list[ScoreReceipt | ReferenceScores]:
        """Return a receipt, then the initial model's log-probs of each rollout's response under the rollout's own
        prompt.

        No update changes them; the receipt names the version `INITIAL`.
        """
        assert self._initial is not None, "asked for a reference in a run without reference_kl"
        began = time.perf_counter()
        items = [whole_response(rollout.prompt_ids, rollout.response_ids) for rollout in rollouts]
        with self._doing("reference", len(items)):
            found = self._forward([(self._initial, 1.0)], items, temperature, None)
        scores = [
            ReferenceScores(task_id=r.task_id, sample_index=r.sample_index, sampled_log_probs=f.sampled.numpy())
            for r, f in zip(rollouts, found, strict=True)
        ]
        return [_receipt(INITIAL, items, began), *scores]

    def _load(self) -> ScoringModel:
        hf_model = load_causal_lm(self._config.model.path, torch_dtype(self._config.model.dtype))
        model = ScoringModel(hf_model, self._config.learner.logits_chunk_tokens)
        return model.requires_grad_(False).to(self._device)

    def _hindsight_models(self) -> list[tuple[ScoringModel, float]]:
        """Return (model, weight of its logits): q is proportional to the product of their powers."""
        teacher = self._config.teacher.regularisation
        if teacher.mixes:
            shares = [(self._initial, 1 - teacher.current_share), (self._current, teacher.current_share)]
        else:
            shares = [(self._initial if self._current is None else self._current, 1.0)]
        return [(model, share) for model, share in shares if model is not None]

    def _given_supports(self, rollouts: Sequence[Rollout], policies: Sequence[PolicyScores]) -> list[Int32 | None]:
        """Return int32 [T, K] each, from the policy if it chose, else from the engine; None where neither gives one."""
        if self._support != "given":
            return [None] * len(rollouts)
        if not self._config.scores_after_old_log_probs:
            return [support_ids_of(rollout) for rollout in rollouts]
        for policy, rollout in zip(policies, rollouts, strict=True):
            _require_same(policy, rollout)
            if policy.support_ids is None:
                raise InfrastructureError(f"policy scores of {policy.task_id}#{policy.sample_index} carry no support")
        return [policy.support_ids for policy in policies]

    @torch.inference_mode()
    def _forward(
        self,
        models: Sequence[tuple[ScoringModel, float]],
        items: Sequence[ScoringItem],
        temperature: float,
        support: SupportMode,
    ) -> list[TokenLogProbs]:
        """Return the log-probs of each item, on the CPU. How they are packed changes nothing."""
        found: dict[int, TokenLogProbs] = {}
        lengths = [item.num_tokens for item in items]
        (forwards,) = plan_micro_batches(lengths, 1, self._config.teacher.tokens_per_forward)
        for indices in filter(None, forwards):
            batch = make_batch([items[i] for i in indices], self._device)
            top_k = self._config.objective.needs.support_size if support == "top_k" else 0
            request = ScoreRequest(batch=batch, temperature=temperature, support=support, top_k=top_k)
            (model, _), *others = models
            scored = mixed_forward(models, request) if others else model(request)
            found |= zip(indices, scored.log_probs.split(batch.counts), strict=True)
        return [found[i] for i in range(len(items))]


def support_mode(config: RunConfig) -> SupportMode:
    """Return how the teacher gets its support: not at all where the estimator looks at sampled tokens only."""
    modes: dict[SupportSource | None, SupportMode] = {"teacher": "top_k", "full": "full", None: None}
    return modes.get(config.objective.needs.support, "given")


def _require_same(companion: HindsightPrompt | PolicyScores, rollout: Rollout) -> None:
    if (companion.task_id, companion.sample_index) != (rollout.task_id, rollout.sample_index):
        raise InfrastructureError(
            f"{type(companion).__name__} of {companion.task_id}#{companion.sample_index} came with "
            f"rollout {rollout.task_id}#{rollout.sample_index}"
        )


def _receipt(version: Version, items: Sequence[ScoringItem], began: float) -> ScoreReceipt:
    num_tokens = sum(item.num_tokens for item in items)
    return ScoreReceipt(version=version, num_tokens=num_tokens, seconds=time.perf_counter() - began)


def _teacher_scores(rollout: Rollout, found: TokenLogProbs, version: Version, support: SupportMode) -> TeacherScores:
    chosen = found.support_ids if support == "top_k" else None
    return TeacherScores(
        task_id=rollout.task_id,
        sample_index=rollout.sample_index,
        sampled_log_probs=found.sampled.numpy(),
        entropy=found.entropy.numpy(),
        support_ids=None if chosen is None else chosen.numpy().astype(np.int32),
        support_log_probs=None if found.support is None else found.support.numpy(),
        tail_log_probs=None if found.tail is None else found.tail.numpy(),
        version=version,
    )
