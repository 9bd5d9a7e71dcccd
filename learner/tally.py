"""What one training step measured, summed over micro-batches and ranks."""

import torch
import torch.distributed as dist

from learner.scoring import TokenLogProbs

SUMS = ("loss", "teacher_gap", "engine_gap_mean", "entropy", "is_clipped_fraction")
"""Metrics that are means over active tokens. teacher_gap: log q - log p of the sampled tokens, 0 without teacher."""


class StepTally:
    """Collects per-token values without gradients; `metrics` reduces them over all ranks (a collective)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums = torch.zeros(len(SUMS), dtype=torch.float64, device=device)
        self._engine_gaps: list[torch.Tensor] = []
        self._padded_tokens = self._tokens = 0

    @torch.no_grad()
    def add_tokens(
        self,
        losses_N: torch.Tensor,
        student: TokenLogProbs,
        behaviour_N: torch.Tensor,
        teacher_sampled_N: torch.Tensor | None,
        clip: float | None,
    ) -> None:
        """`clip` is the cap of the importance ratio of student over engine."""
        ratio_log_N = student.sampled - behaviour_N
        gap_N = torch.zeros_like(ratio_log_N) if teacher_sampled_N is None else teacher_sampled_N - student.sampled
        clipped_N = torch.zeros_like(ratio_log_N) if clip is None else (ratio_log_N.exp() > clip).float()
        rows = torch.stack([losses_N.detach(), gap_N, ratio_log_N.abs(), student.entropy, clipped_N])
        self._sums += rows.double().sum(1)
        self._engine_gaps.append(ratio_log_N.abs())

    def add_work(self, padded_tokens: int, tokens: int) -> None:
        """Tokens that went through the model, with and without padding."""
        self._padded_tokens += padded_tokens
        self._tokens += tokens

    def metrics(self) -> dict[str, float]:
        """Means over the active tokens of all ranks; `engine_gap_p99` is the largest of the ranks' own."""
        gaps = torch.cat(self._engine_gaps) if self._engine_gaps else torch.zeros(0, device=self._device)
        counts = torch.tensor([len(gaps), self._padded_tokens, self._tokens], dtype=torch.float64, device=self._device)
        totals = torch.cat([self._sums, counts])
        dist.all_reduce(totals)
        rank = max(1, -(-len(gaps) * 99 // 100))
        p99 = gaps.kthvalue(rank).values.double() if len(gaps) else torch.zeros((), dtype=torch.float64)
        p99 = p99.to(self._device)
        dist.all_reduce(p99, dist.ReduceOp.MAX)
        *sums, num_active, padded_tokens, tokens = totals.tolist()
        means = {name: value / max(num_active, 1.0) for name, value in zip(SUMS, sums, strict=True)}
        return means | {"engine_gap_p99": float(p99), "tokens": tokens, "padded_tokens": padded_tokens}
