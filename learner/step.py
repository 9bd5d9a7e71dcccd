"""One optimizer step over a rollout batch: global token mean, whatever the micro-batches and ranks (design 4).

N active tokens of one micro-batch: model-authored tokens of attempts that carry a signal.
"""

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.autograd import backward
from torch.distributed.tensor import DTensor

from learner.batch import ScoringItem, behaviour_log_probs_of, idle_batch, make_batch, support_ids_of
from learner.model import local_part, named_masters
from learner.scoring import ScoringModel, TokenLogProbs
from learner.tally import StepTally
from sdpo.config import RunConfig, SdpoObjective
from sdpo.errors import InfrastructureError
from sdpo.objective import grpo_token_loss, sdpo_token_loss
from sdpo.types import Experience


class Trainer:
    """Holds the sharded model and AdamW; `step` trains on one rollout batch."""

    def __init__(self, model: ScoringModel, config: RunConfig, device: torch.device) -> None:
        settings = config.learner.optimizer
        self.model, self.optimizer_step = model, 0
        self._config, self._device, self._settings = config, device, settings
        self._parameters = [parameter for _, parameter in named_masters(model)]
        self.optimizer = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        for parameter in self._parameters:
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def step(self, experiences: Sequence[Experience], micro_batches: Sequence[Sequence[int]]) -> dict[str, float]:
        """Train on `micro_batches` of indices into `experiences`. All ranks together.

        The step is skipped (metric `skipped` 1) when the gradient is not finite or no token is active.
        Metrics are of the whole batch, over all ranks, but `seconds`, which is this rank's.
        """
        began = time.perf_counter()
        active = [self._active(e) for e in experiences]
        work = [[i for i in micro_batch if active[i].any()] for micro_batch in micro_batches]
        num_active = self._agree(sum(int(active[i].sum()) for part in work for i in part), len(work))
        tally = StepTally(self._device)
        self.optimizer.zero_grad()
        for part in work:
            self._backward([experiences[i] for i in part], [active[i] for i in part], num_active, tally)
        learning_rate, grad_norm, stepped = self._update(num_active)
        return tally.metrics() | {
            "grad_norm": grad_norm,
            "active_tokens": float(num_active),
            "skipped": float(not stepped),
            "optimizer_step": float(self.optimizer_step),
            "learning_rate": learning_rate,
            "seconds": time.perf_counter() - began,
        }

    def _active(self, experience: Experience) -> NDArray[np.bool_]:
        mask = experience.rollout.model_mask
        if isinstance(self._config.objective, SdpoObjective) and experience.scores is None:
            return np.zeros_like(mask)
        return mask

    def _agree(self, num_active: int, num_micro_batches: int) -> int:
        """Active tokens over all ranks. Raises `InfrastructureError` if the ranks would wait for each other."""
        counts = torch.tensor([num_active, num_micro_batches, num_micro_batches**2], device=self._device)
        dist.all_reduce(counts)
        total, total_micro, total_squares = counts.tolist()
        if total_squares * dist.get_world_size() != total_micro**2:
            raise InfrastructureError(f"ranks hold different numbers of micro-batches; this one {num_micro_batches}")
        return int(total)

    def _backward(
        self, experiences: list[Experience], active: list[NDArray[np.bool_]], num_active: int, tally: StepTally
    ) -> None:
        """Forward and backward of one micro-batch; a rank without work runs it too, with weight zero."""
        wants_support = isinstance(self._config.objective, SdpoObjective)
        if experiences:
            pairs = zip(experiences, active, strict=True)
            batch = make_batch([_item(e, keep, wants_support) for e, keep in pairs], self._device)
        else:
            batch = idle_batch(self._config.objective.top_k, self._device)
        temperature = self._config.rollout.sampling.temperature
        student = self.model(batch.input_ids, batch.positions, batch.sampled_ids, batch.support_ids, temperature)
        if experiences:
            losses_N = self._losses(student, experiences, active, tally)
        else:
            losses_N = 0.0 * sum(part for part in student[:3] if part is not None).sum()
        # FSDP averages gradients over ranks; the token mean needs their sum.
        backward(losses_N.sum() * (dist.get_world_size() / max(num_active, 1)))
        tally.add_work(batch.input_ids.numel(), sum(e.num_tokens for e in experiences))

    def _losses(
        self, student: TokenLogProbs, experiences: list[Experience], active: list[NDArray[np.bool_]], tally: StepTally
    ) -> torch.Tensor:
        objective = self._config.objective
        behaviour_N = self._gather([behaviour_log_probs_of(e.rollout) for e in experiences], active)
        if isinstance(objective, SdpoObjective):
            scores = [e.scores for e in experiences if e.scores is not None]
            assert student.support is not None
            assert student.tail is not None
            teacher_sampled_N = self._gather([s.sampled_log_probs for s in scores], active)
            losses_N = sdpo_token_loss(
                student.support,
                student.tail,
                self._gather([s.support_log_probs for s in scores], active),
                self._gather([s.tail_log_probs for s in scores], active),
                student.sampled,
                behaviour_N,
                objective,
            )
            tally.add_tokens(losses_N, student, behaviour_N, teacher_sampled_N, objective.is_clip)
            return losses_N
        advantage = [np.full(len(keep), e.advantage, np.float32) for e, keep in zip(experiences, active, strict=True)]
        losses_N = grpo_token_loss(
            student.sampled, student.sampled.detach(), behaviour_N, self._gather(advantage, active), objective
        )
        tally.add_tokens(losses_N, student, behaviour_N, None, objective.tis_clip)
        return losses_N

    def _gather(self, arrays: Sequence[NDArray[np.float32]], active: Sequence[NDArray[np.bool_]]) -> torch.Tensor:
        """float32 [N, ...]: the active positions of each attempt's [T, ...]."""
        parts = [array[keep] for array, keep in zip(arrays, active, strict=True)]
        return torch.from_numpy(np.concatenate(parts)).to(self._device)

    def _update(self, num_active: int) -> tuple[float, float, bool]:
        """Clip, warm up, step. Returns learning rate, gradient norm before clipping, and whether it stepped."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        learning_rate = self._settings.learning_rate
        if self._settings.warmup_steps:
            learning_rate *= min(1.0, (self.optimizer_step + 1) / self._settings.warmup_steps)
        if num_active == 0 or not math.isfinite(grad_norm):
            return learning_rate, grad_norm, False
        scale = min(1.0, self._settings.max_grad_norm / (grad_norm + 1e-6))
        torch._foreach_mul_([local_part(g) for g in gradients], scale)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer_step += 1
        return learning_rate, grad_norm, True


def _item(experience: Experience, keep: NDArray[np.bool_], wants_support: bool) -> ScoringItem:
    rollout = experience.rollout
    return ScoringItem(
        context_ids=rollout.prompt_ids,
        response_ids=rollout.response_ids,
        keep=keep,
        support_ids=support_ids_of(rollout) if wants_support else None,
    )
