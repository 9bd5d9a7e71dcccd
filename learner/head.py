"""The output layer fused with the loss: gradients are made chunk by chunk in the forward pass, nothing is recomputed.

N scored positions, C positions of a chunk, H hidden size, V vocabulary, K support size. No [N, V] exists at any time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from learner.batch import ScoringBatch
from learner.chunk import BinScores, TokenLogProbs, VocabularyScores
from learner.wide_product import wide_product
from sdpo.errors import ModelError

TokenLoss = Callable[[TokenLogProbs, slice], Tensor]
"""Losses [C] of the scored positions in the slice, from their log-probs; called once per chunk, in order, with
gradients enabled on `sampled`, `support` and `tail`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """What is asked about a batch's scored positions, at `temperature`.

    support "given": at the batch's support_ids; "top_k": at the model's own `top_k` most likely tokens, descending;
    "full": at the whole vocabulary; None: at the sampled tokens only. `loss` is the only way to gradients.
    """

    batch: ScoringBatch
    temperature: float
    support: Literal["given", "top_k", "full"] | None
    top_k: int = 0
    loss: TokenLoss | None = None


class Scored(NamedTuple):
    """log_probs are detached; with a loss and support "full", their `support` is None. losses float32 [N], detached.
    total: the sum of the losses, attached to the graph. Both None without a loss.
    """

    log_probs: TokenLogProbs
    losses: Tensor | None
    total: Tensor | None


class ScoringHead(nn.Module):
    """Holds the causal LM's own output weight [V, H] (the same Parameter), so that whatever gathers shards for the
    module being called gathers it once per micro-batch. The backward pass does not need it.
    """

    def __init__(self, hf_model: PreTrainedModel, chunk_tokens: int) -> None:
        """Raises `ModelError` for an output layer that is more than a matrix."""
        super().__init__()
        layer = hf_model.get_output_embeddings()
        if not isinstance(layer, nn.Linear) or layer.bias is not None:
            kind = type(layer).__name__ + (" with a bias" if isinstance(layer, nn.Linear) else "")
            raise ModelError(f"{type(hf_model).__name__}: output layer is {kind}; allowed: linear without a bias")
        self.weight: nn.Parameter = layer.weight
        self.chunk_tokens: int = chunk_tokens

    def forward(self, hidden_NH: Tensor, request: ScoreRequest) -> Scored:
        """Score hidden_NH, which is in any floating dtype; products multiply in the weight's dtype and, like all else,
        have float32 results.
        Raises `ValueError` without a loss where gradients are enabled and wanted.
        """
        hidden_NH = hidden_NH.to(self.weight.dtype)
        attached = torch.is_grad_enabled() and (hidden_NH.requires_grad or self.weight.requires_grad)
        if attached and request.loss is None:
            raise ValueError(
                "loss=None with gradients enabled: log-probs carry none; allowed: a loss, or torch.no_grad()"
            )
        work = _Chunks([(hidden_NH.detach(), self.weight.detach(), 1.0)], request, self.chunk_tokens)
        if not attached:
            return work.run()
        total: Tensor = _FusedLoss.apply(hidden_NH, self.weight, work)  # type: ignore[no-untyped-call]
        assert work.scored is not None
        return work.scored._replace(total=total)


class _FusedLoss(torch.autograd.Function):
    """(hidden [N, H], weight [V, H]) -> sum of the losses; both gradients are ready when the forward pass returns."""

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, work: "_Chunks") -> Tensor:
        work.want_gradients(*ctx.needs_input_grad[:2])
        total = work.run().total
        assert total is not None
        ctx.gradients, ctx.dtype = (work.hidden_gradient, work.weight_gradient), weight_VH.dtype
        work.hidden_gradient = work.weight_gradient = None
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if ctx.gradients is None:
            raise RuntimeError("backward a second time through a fused loss: its gradients are spent")
        hidden, weight = (None if g is None else g.mul_(upstream).to(ctx.dtype) for g in ctx.gradients)
        ctx.gradients = None
        return hidden, weight, None


class _Chunks:
    """The loop over chunks of positions. Each part is (hidden [N, H], weight [V, H], its weight in the sum of logits);
    gradients are for a single part.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, Tensor, float]], request: ScoreRequest, chunk_tokens: int) -> None:
        hidden_NH, weight_VH, _ = parts[0]
        num_positions, vocabulary = len(hidden_NH), len(weight_VH)
        chunk = min(chunk_tokens, num_positions)
        self._parts, self._request, self._chunk_tokens = parts, request, chunk_tokens
        self._wide = torch.float64 if weight_VH.dtype == torch.float64 else torch.float32
        self._logits = hidden_NH.new_empty(chunk, vocabulary, dtype=self._wide)
        self._scratch = torch.empty_like(self._logits)
        same = weight_VH.dtype == self._wide
        self._narrow = None if same else weight_VH.new_empty(chunk, vocabulary)
        self._bins = _support_size(request, vocabulary)
        self.hidden_gradient: Tensor | None = None
        self.weight_gradient: Tensor | None = None
        self.scored: Scored | None = None

    def want_gradients(self, hidden: bool, weight: bool) -> None:
        """Make float32 accumulators: a weight's gradient is a sum over many chunks."""
        hidden_NH, weight_VH, _ = self._parts[0]
        self.hidden_gradient = torch.empty_like(hidden_NH) if hidden else None
        self.weight_gradient = torch.empty_like(weight_VH, dtype=self._wide) if weight else None

    def run(self) -> Scored:
        """Fills `scored` and whatever gradients are wanted."""
        num_positions, loss = len(self._parts[0][0]), self._request.loss
        found = _Results(num_positions, self._request, self._bins, self._logits)
        losses = None if loss is None else self._logits.new_empty(num_positions)
        if num_positions == 0 and self.weight_gradient is not None:
            self.weight_gradient.zero_()
        for start in range(0, num_positions, self._chunk_tokens):
            rows = slice(start, min(start + self._chunk_tokens, num_positions))
            scores = self._score(rows)
            if loss is not None and losses is not None:
                losses[rows] = self._loss(loss, scores, rows)
            found.put(rows, scores.log_probs)
        self.scored = Scored(found.log_probs(), losses, None if losses is None else losses.sum())
        return self.scored

    def _score(self, rows: slice) -> BinScores | VocabularyScores:
        request = self._request
        logits_CV = self._chunk_logits(rows)
        scratch_CV, sampled_C = self._scratch[: len(logits_CV)], request.batch.sampled_ids[rows]
        match request.support:
            case "full":
                return VocabularyScores(logits_CV, scratch_CV, sampled_C)
            case "top_k":
                return BinScores(logits_CV, scratch_CV, sampled_C, logits_CV.topk(request.top_k).indices)
            case "given":
                assert request.batch.support_ids is not None
                return BinScores(logits_CV, scratch_CV, sampled_C, request.batch.support_ids[rows])
            case None:
                return BinScores(logits_CV, scratch_CV, sampled_C, None)

    def _chunk_logits(self, rows: slice) -> Tensor:
        """Compute the logits over the temperature, [C, V], in the first buffer."""
        logits_CV = self._logits[: rows.stop - rows.start]
        for index, (hidden_NH, weight_VH, share) in enumerate(self._parts):
            scale = share / self._request.temperature
            if self._narrow is None:
                torch.addmm(logits_CV, hidden_NH[rows], weight_VH.T, beta=min(index, 1), alpha=scale, out=logits_CV)
                continue
            part_CV = logits_CV if index == 0 else self._scratch[: len(logits_CV)]
            wide_product(hidden_NH[rows], weight_VH, part_CV, self._narrow[: len(logits_CV)]).mul_(scale)
            if index:
                logits_CV.add_(part_CV)
        return logits_CV

    def _loss(self, loss: TokenLoss, scores: BinScores | VocabularyScores, rows: slice) -> Tensor:
        """Return the losses [C] of a chunk; add its part of the gradients."""
        if self.hidden_gradient is None and self.weight_gradient is None:
            return loss(scores.log_probs, rows)
        found = scores.log_probs
        names = [name for name in ("sampled", "support", "tail") if getattr(found, name) is not None]
        leaves = [getattr(found, name).requires_grad_() for name in names]
        with torch.enable_grad():
            losses_C = loss(found, rows)
            gradients = torch.autograd.grad(losses_C.sum(), leaves, materialize_grads=True)
        scaled = {name: g / self._request.temperature for name, g in zip(names, gradients, strict=True)}
        gradient_CV = scores.logits_gradient(scaled["sampled"], scaled.get("support"), scaled.get("tail"))
        self._accumulate(rows, gradient_CV)
        return losses_C.detach()

    def _accumulate(self, rows: slice, gradient_CV: Tensor) -> None:
        hidden_NH, weight_VH, _ = self._parts[0]
        narrow_CV = gradient_CV if self._narrow is None else self._narrow[: len(gradient_CV)].copy_(gradient_CV)
        if self.hidden_gradient is not None:
            torch.mm(narrow_CV, weight_VH, out=self.hidden_gradient[rows])
        if self.weight_gradient is None:
            return
        if self._narrow is None:
            self.weight_gradient.addmm_(narrow_CV.T, hidden_NH[rows], beta=min(rows.start, 1))
            return
        if rows.start == 0:
            self.weight_gradient.zero_()
        block = max(1, gradient_CV.numel() // hidden_NH.shape[1])  # a temporary no larger than the chunk's logits
        for start in range(0, len(weight_VH), block):
            part = slice(start, start + block)
            self.weight_gradient[part] += narrow_CV[:, part].T @ hidden_NH[rows]


class _Results:
    """The chunks' log-probs put together, without gradients."""

    def __init__(self, num_positions: int, request: ScoreRequest, bins: int, like: Tensor) -> None:
        binned = request.support in ("given", "top_k")
        keep_bins = binned or (request.support == "full" and request.loss is None)
        self._sampled, self._entropy = like.new_empty(num_positions), like.new_empty(num_positions)
        self._support = like.new_empty(num_positions, bins) if keep_bins else None
        self._ids = request.batch.sampled_ids.new_empty(num_positions, bins) if binned else None
        self._tail = like.new_empty(num_positions) if binned else None

    @torch.no_grad()
    def put(self, rows: slice, found: TokenLogProbs) -> None:
        pairs = zip((self._sampled, self._ids, self._support, self._tail, self._entropy), found, strict=True)
        for whole, part in pairs:
            if whole is not None and part is not None:
                whole[rows] = part

    def log_probs(self) -> TokenLogProbs:
        return TokenLogProbs(self._sampled, self._ids, self._support, self._tail, self._entropy)


def _support_size(request: ScoreRequest, vocabulary: int) -> int:
    match request.support:
        case "full":
            return vocabulary
        case "top_k":
            if not 1 <= request.top_k <= vocabulary:
                raise ModelError(f"top_k={request.top_k}: allowed: 1 to the vocabulary's {vocabulary}")
            return request.top_k
        case "given":
            if request.batch.support_ids is None:
                raise ValueError("support=given: the batch has no support_ids")
            return request.batch.support_ids.shape[1]
        case None:
            return 0


def mixed_scores(parts: Sequence[tuple[Tensor, ScoringHead, float]], request: ScoreRequest) -> Scored:
    """Return log-probs of the weighted sum of logits, each (hidden [N, H], head, weight). Call without gradients."""
    products = [(hidden.to(head.weight.dtype), head.weight, weight) for hidden, head, weight in parts]
    return _Chunks(products, request, parts[0][1].chunk_tokens).run()
