"""The fused scoring head against plain log-softmax: values, gradients, memory, and what it refuses."""

from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from learner.chunk import TokenLogProbs
from learner.head import Scored, ScoreRequest, ScoringHead, TokenLoss, mixed_scores
from sdpo.errors import ModelError

N, H, V, K = 11, 6, 17, 4
Support = Literal["given", "top_k", "full"] | None
SUPPORTS: list[Support] = ["given", "top_k", "full", None]


def random_problem(dtype: torch.dtype = torch.float64, n: int = N, h: int = H, v: int = V) -> tuple[Tensor, ...]:
    """hidden [n, h], weight [v, h], sampled_ids [n], support_ids [n, K], coefficients [n, v] of the loss."""
    torch.manual_seed(1)
    support_ids = torch.rand(n, v).topk(min(K, v)).indices
    sampled_ids = torch.where(torch.arange(n) % 2 == 0, support_ids[:, 0], torch.randint(v, (n,)))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return (
        torch.randn(n, h).to(dtype),
        torch.randn(v, h).to(dtype),
        sampled_ids,
        support_ids,
        torch.randn(n, v).to(wide),
    )


def mixed_loss(coefficients: Tensor) -> TokenLoss:
    """A loss that uses everything that there is, unevenly."""

    def loss(found: TokenLogProbs, rows: slice) -> Tensor:
        c = coefficients[rows]
        total = found.sampled.square() * c[:, 0]
        if found.support is not None:
            total = total + (found.support.exp() * c[:, : found.support.shape[1]]).sum(1) + found.support[:, 0].sin()
        return total if found.tail is None else total + found.tail * c[:, 1]

    return loss


def head_of(weight: Tensor, chunk: int, trained: bool = True) -> ScoringHead:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=trained)
    return ScoringHead(SimpleNamespace(get_output_embeddings=lambda: layer), chunk)  # type: ignore[arg-type]


def request_of(support: Support, sampled_ids: Tensor, support_ids: Tensor, **more: Any) -> ScoreRequest:
    batch: Any = SimpleNamespace(sampled_ids=sampled_ids, support_ids=support_ids)
    more = {"temperature": 0.7, "top_k": K} | more
    return ScoreRequest(batch=batch, support=support, **more)


def plain(logits: Tensor, support: Support, sampled_ids: Tensor, support_ids: Tensor) -> TokenLogProbs:
    """From logits at the run's temperature."""
    log_probs = logits.log_softmax(-1)
    sampled, entropy = log_probs.gather(1, sampled_ids[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)
    if support is None:
        return TokenLogProbs(sampled, None, None, None, entropy)
    if support == "full":
        return TokenLogProbs(sampled, None, log_probs, None, entropy)
    ids = support_ids if support == "given" else log_probs.topk(K).indices
    tail = log_probs.scatter(1, ids, -torch.inf).logsumexp(-1)
    return TokenLogProbs(sampled, ids, log_probs.gather(1, ids), tail, entropy)


def assert_same(got: TokenLogProbs, want: TokenLogProbs, **tolerance: Any) -> None:
    for name in TokenLogProbs._fields:
        found, wanted = getattr(got, name), getattr(want, name)
        assert (found is None) == (wanted is None), name
        if found is not None:
            assert not found.requires_grad
            torch.testing.assert_close(found.double(), wanted.detach().double(), **tolerance)


@pytest.mark.parametrize("chunk", [1, 4, N, 100])
@pytest.mark.parametrize("support", SUPPORTS)
def test_losses_and_gradients_equal_the_plain_way(support: Support, chunk: int) -> None:
    hidden, weight, sampled_ids, support_ids, coefficients = random_problem()
    head, loss = head_of(weight, chunk), mixed_loss(coefficients)
    states = hidden.clone().requires_grad_()
    scored = head(states, request_of(support, sampled_ids, support_ids, loss=loss))
    (3.0 * scored.total).backward()
    plain_states, plain_weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    found = plain(plain_states @ plain_weight.T / 0.7, support, sampled_ids, support_ids)
    losses = loss(found, slice(None))
    (3.0 * losses.sum()).backward()
    tight: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(scored.losses, losses.detach(), **tight)
    torch.testing.assert_close(scored.total.detach(), losses.detach().sum(), **tight)
    torch.testing.assert_close(states.grad, plain_states.grad, **tight)
    torch.testing.assert_close(head.weight.grad, plain_weight.grad, **tight)
    shown = found._replace(support=None) if support == "full" else found
    assert_same(scored.log_probs, shown, **tight)


@pytest.mark.parametrize("support", SUPPORTS)
def test_scores_without_a_loss_equal_the_plain_way(support: Support) -> None:
    hidden, weight, sampled_ids, support_ids, _ = random_problem(torch.float32)
    with torch.no_grad():
        scored = head_of(weight, 3)(hidden, request_of(support, sampled_ids, support_ids))
    assert scored.losses is None
    assert scored.total is None
    assert scored.log_probs.sampled.dtype == torch.float32
    logits = hidden.double() @ weight.double().T / 0.7
    assert_same(scored.log_probs, plain(logits, support, sampled_ids, support_ids), rtol=1e-5, atol=1e-5)


class Afresh(torch.autograd.Function):
    """Runs the head again for every backward pass: gradcheck asks many of one graph, and the head allows one."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, request: ScoreRequest) -> Tensor:
        ctx.save_for_backward(states, weight)
        ctx.request = request
        total = head_of(weight, 2)(states, request).total
        assert isinstance(total, Tensor)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        states, head = ctx.saved_tensors[0].detach().requires_grad_(), head_of(ctx.saved_tensors[1].detach(), 2)
        with torch.enable_grad():
            head(states, ctx.request).total.backward(upstream)
        return states.grad, head.weight.grad, None


@pytest.mark.parametrize("support", SUPPORTS)
def test_gradcheck(support: Support) -> None:
    hidden, weight, sampled_ids, support_ids, coefficients = random_problem(n=3, h=2, v=6)
    request = request_of(support, sampled_ids, support_ids, loss=mixed_loss(coefficients))
    inputs: Any = (hidden.requires_grad_(), weight.requires_grad_(), request)
    assert torch.autograd.gradcheck(Afresh.apply, inputs, check_undefined_grad=False)


def test_a_tail_of_any_size_is_exact() -> None:
    """One minus the support's mass would be 0 in the first row and off in the second."""
    logits = torch.zeros(2, V)
    logits[0, :K], logits[1, :K] = 300.0, 12.0
    logits[:, K:] += torch.linspace(-1.0, 1.0, V - K)
    hidden, weight = logits, torch.eye(V)
    sampled_ids, support_ids = torch.tensor([0, V - 1]), torch.arange(K).expand(2, K)
    states = hidden.clone().requires_grad_()
    request = request_of("given", sampled_ids, support_ids, temperature=1.0, loss=lambda found, _: found.tail)
    scored = head_of(weight, 2)(states, request)
    scored.total.backward()
    wide = logits.double().requires_grad_()
    want = plain(wide, "given", sampled_ids, support_ids)
    assert want.tail is not None
    want.tail.sum().backward()
    assert_same(scored.log_probs, want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(states.grad, wide.grad.float(), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]


def test_empty_complement_is_harmless() -> None:
    hidden, weight, sampled_ids, _, coefficients = random_problem(torch.float32)
    vocabulary = torch.arange(V).expand(N, V)

    def loss(found: TokenLogProbs, rows: slice) -> Tensor:
        assert found.support is not None
        assert found.tail is not None
        return found.tail.exp() * found.tail + (found.support * coefficients[rows]).sum(1)

    states = hidden.clone().requires_grad_()
    scored = head_of(weight, 4)(states, request_of("given", sampled_ids, vocabulary, loss=loss))
    scored.total.backward()
    assert (scored.log_probs.tail < -1000).all()
    wide = hidden.double().requires_grad_()
    ((wide @ weight.double().T / 0.7).log_softmax(-1) * coefficients).sum().backward()
    torch.testing.assert_close(states.grad, wide.grad.float(), rtol=1e-4, atol=1e-4)  # type: ignore[union-attr]


def test_frozen_head_gets_no_gradient_and_the_states_the_same() -> None:
    hidden, weight, sampled_ids, support_ids, coefficients = random_problem()
    request = request_of("given", sampled_ids, support_ids, loss=mixed_loss(coefficients))
    gradients = []
    for trained in (True, False):
        head, states = head_of(weight, 4, trained), hidden.clone().requires_grad_()
        head(states, request).total.backward()
        assert (head.weight.grad is not None) == trained
        gradients.append(states.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_losses_are_the_same_without_gradients() -> None:
    hidden, weight, sampled_ids, support_ids, coefficients = random_problem()
    request = request_of("full", sampled_ids, support_ids, loss=mixed_loss(coefficients))
    head = head_of(weight, 4)
    with torch.no_grad():
        quiet = head(hidden, request)
    assert not quiet.total.requires_grad
    torch.testing.assert_close(quiet.losses, head(hidden, request).losses, rtol=0, atol=0)


def test_bfloat16_weight_gradient_is_a_float32_sum() -> None:
    """Many chunks: adding them up in bfloat16 would lose what one is small beside the sum of the others."""
    n, v = 128, 40
    hidden, weight, sampled_ids, support_ids, _ = random_problem(torch.bfloat16, n, 8, v)
    hidden, weight = hidden.abs(), weight / 4
    loss: TokenLoss = lambda found, _: -found.sampled  # noqa: E731
    head, states = head_of(weight, 1), hidden.clone().requires_grad_()
    scored = head(states, request_of(None, sampled_ids * 0, support_ids, loss=loss))
    scored.total.backward()
    assert states.grad is not None
    assert head.weight.grad is not None
    assert states.grad.dtype == head.weight.grad.dtype == torch.bfloat16
    wide, wide_weight = hidden.double().requires_grad_(), weight.double().requires_grad_()
    (-(wide @ wide_weight.T / 0.7).log_softmax(-1)[:, 0].sum()).backward()
    for got, want in ((states.grad, wide.grad), (head.weight.grad, wide_weight.grad)):
        assert want is not None
        assert (got.double() - want).norm() <= 5e-3 * want.norm()


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returned, in forward or backward."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        self.largest = max(self.largest, *sizes, 0)
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("support", SUPPORTS)
def test_no_tensor_is_larger_than_a_chunk_of_logits(support: Support, dtype: torch.dtype) -> None:
    n, h, v, chunk = 64, 8, 500, 8  # a chunk's logits are as large as the weight
    hidden, weight, sampled_ids, support_ids, coefficients = random_problem(dtype, n, h, v)
    head, states = head_of(weight, chunk), hidden.clone().requires_grad_()
    with LargestTensor() as student:
        loss = mixed_loss(coefficients[:, :2].repeat_interleave(v // 2, 1).as_strided((n, v), (2, 0)))
        student.largest = 0
        head(states, request_of(support, sampled_ids, support_ids, loss=loss)).total.backward()
    assert student.largest == chunk * v
    if support != "full":
        with LargestTensor() as teacher, torch.no_grad():
            head(hidden, request_of(support, sampled_ids, support_ids))
        assert teacher.largest == chunk * v


def test_mixture_is_of_logits_normalised_over_the_vocabulary() -> None:
    hidden, weight, sampled_ids, support_ids, _ = random_problem(torch.float32)
    other, other_weight = torch.randn(N, 3), torch.randn(V, 3)
    logits = (0.75 * hidden.double() @ weight.double().T + 0.25 * other.double() @ other_weight.double().T) / 0.7
    for support in SUPPORTS:
        with LargestTensor() as seen, torch.no_grad():
            parts = [(hidden, head_of(weight, 2), 0.75), (other, head_of(other_weight, 5), 0.25)]
            scored = mixed_scores(parts, request_of(support, sampled_ids, support_ids))
        assert isinstance(scored, Scored)
        assert_same(scored.log_probs, plain(logits, support, sampled_ids, support_ids), rtol=1e-5, atol=1e-5)
        assert support == "full" or seen.largest <= V * H


def test_no_positions_give_a_loss_of_zero_and_zero_gradients() -> None:
    hidden, weight, sampled_ids, support_ids, coefficients = random_problem()
    head, states = head_of(weight, 4), hidden[:0].clone().requires_grad_()
    request = request_of("given", sampled_ids[:0], support_ids[:0], loss=mixed_loss(coefficients))
    scored = head(states, request)
    scored.total.backward()
    assert scored.total == 0
    assert scored.log_probs.support.shape == (0, K)
    assert head.weight.grad is not None
    assert not head.weight.grad.any()


def test_what_the_head_refuses() -> None:
    hidden, weight, sampled_ids, support_ids, coefficients = random_problem()
    head = head_of(weight, 4)
    with pytest.raises(ValueError, match="loss=None with gradients enabled"):
        head(hidden, request_of("given", sampled_ids, support_ids))
    for count in (0, V + 1):
        with pytest.raises(ModelError, match=f"top_k={count}: allowed: 1 to the vocabulary's {V}"), torch.no_grad():
            head(hidden, request_of("top_k", sampled_ids, support_ids, top_k=count))
    for layer, words in ((nn.Linear(2, 3), "Linear with a bias"), (nn.Identity(), "Identity")):
        with pytest.raises(ModelError, match=words):
            ScoringHead(SimpleNamespace(get_output_embeddings=lambda: layer), 4)  # type: ignore[arg-type]  # noqa: B023
    request = request_of("given", sampled_ids, support_ids, loss=mixed_loss(coefficients))
    total = head(hidden, request).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward a second time"):
        total.backward()
