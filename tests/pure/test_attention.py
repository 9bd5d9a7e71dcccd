"""Packed sequences: each gets what it gets alone, in the states and in the gradients, with recomputation or without."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner import attention
from learner.attention import ATTENTION, attention_arguments, packed_attention, require_packable
from learner.batch import ScoringBatch, ScoringItem, make_batch
from learner.model import decoder_layers
from learner.recompute import enable_gradient_checkpointing
from sdpo.errors import ModelError

CPU = torch.device("cpu")
WINDOW = 4
LENGTHS = (7, 1, 12, 5)
SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(head_dim=16, **SHAPE),
    "olmo3": lambda: transformers.Olmo3Config(**SHAPE, **LAYERS),
    "gemma3": lambda: transformers.Gemma3TextConfig(head_dim=16, **SHAPE, **LAYERS),
}
ARCHITECTURES = pytest.mark.parametrize("architecture", CONFIGS)


def tiny(architecture: str, implementation: str = ATTENTION, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """The same random weights for every implementation."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            CONFIGS[architecture](), attn_implementation=implementation
        )
    return model.to(dtype).eval()  # type: ignore[arg-type]


def sequences(lengths: Sequence[int] = LENGTHS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 61, (length,), generator=generator, dtype=torch.int32) for length in lengths]


def packed(ids: Sequence[Tensor]) -> ScoringBatch:
    empty = {"response_ids": np.zeros(0, np.int32), "keep": np.zeros(0, np.bool_), "support_ids": None}
    return make_batch([ScoringItem(context_ids=part.numpy(), **empty) for part in ids], CPU)  # type: ignore[arg-type]


def states(model: PreTrainedModel, batch: ScoringBatch) -> Tensor:
    """[S, hidden]."""
    out: Tensor = model.base_model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **attention_arguments(batch)
    ).last_hidden_state
    return out[0]


def score(states_SH: Tensor) -> Tensor:
    """A scalar that no symmetry of the states hides in."""
    weights = torch.linspace(-1, 1, states_SH.numel(), dtype=states_SH.dtype).sin()
    return (states_SH.flatten() * weights).sum()


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@ARCHITECTURES
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_packed_equals_every_sequence_alone(architecture: str, dtype: torch.dtype, tolerance: float) -> None:
    ids = sequences()
    ours, theirs = tiny(architecture, dtype=dtype), tiny(architecture, "sdpa", dtype)
    got = states(ours, packed(ids))
    want = torch.cat([theirs.base_model(input_ids=part[None].long()).last_hidden_state[0] for part in ids])
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    score(got).backward()  # type: ignore[no-untyped-call]
    score(want).backward()  # type: ignore[no-untyped-call]
    wanted = gradients(theirs)
    assert wanted.keys() == gradients(ours).keys()
    for name, gradient in gradients(ours).items():
        scale = max(float(wanted[name].abs().max()), 1.0)
        # Gemma sums the gradients of its norms in single precision, whatever the model's.
        allowed = max(tolerance, 1e-6) if architecture == "gemma3" else tolerance
        torch.testing.assert_close(gradient, wanted[name], rtol=0, atol=allowed * scale)


@ARCHITECTURES
def test_order_of_the_sequences_changes_nothing(architecture: str) -> None:
    ids, order = sequences(), [2, 0, 3, 1]
    model = tiny(architecture)
    parts = states(model, packed(ids)).split(LENGTHS)  # type: ignore[no-untyped-call]
    shuffled = states(model, packed([ids[i] for i in order]))
    torch.testing.assert_close(shuffled, torch.cat([parts[i] for i in order]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lengths", [(1,), (9,)])
def test_batch_of_one_sequence(lengths: tuple[int, ...]) -> None:
    (ids,) = sequences(lengths)
    got = states(tiny("olmo3"), packed([ids]))
    want = tiny("olmo3", "sdpa").base_model(input_ids=ids[None].long()).last_hidden_state[0]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_window_longer_than_a_block_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 5 queries with a window of 4, and of 3: neither divides the length."""
    (ids,) = sequences((23,))
    want = tiny("olmo3", "sdpa").base_model(input_ids=ids[None].long()).last_hidden_state[0]
    for block in (3, 5):
        monkeypatch.setattr(attention, "WINDOW_QUERIES", block)
        torch.testing.assert_close(states(tiny("olmo3"), packed([ids])), want, rtol=1e-12, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("architecture", ["qwen3", "olmo3"])
def test_nothing_grows_with_the_square_of_the_packed_row(architecture: str) -> None:
    lengths = (16,) * 64
    num_tokens, width = sum(lengths), 64
    with LargestTensor() as seen, torch.no_grad():
        states(tiny(architecture), packed(sequences(lengths)))
    assert seen.largest <= num_tokens * width < num_tokens**2 // 10


def plain_varlen(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, **rest: Any
) -> Tensor:
    """[S, H, D] by the documented meaning of `varlen_attn`: a window (left, right) counts keys beside the query's own;
    -1 is no bound.
    """
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert max_q == max_k == int(cu_seq_q.diff().max())
    left, right = rest["window_size"]
    out = []
    for start, stop in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
        q, k, v = (t[start:stop].transpose(0, 1) for t in (query, key, value))
        repeats = len(q) // len(k) if rest["enable_gqa"] else 1
        logits = q @ k.repeat_interleave(repeats, 0).transpose(1, 2) * rest["scale"]
        ahead = torch.arange(stop - start)[None] - torch.arange(stop - start)[:, None]
        seen = (ahead <= right) if left == -1 else (ahead <= right) & (ahead >= -left)
        weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
        out.append((weights @ v.repeat_interleave(repeats, 0)).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize("window", [None, 1, WINDOW])
def test_kernel_is_asked_for_the_same_attention(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", plain_varlen)
    generator, batch = torch.Generator().manual_seed(5), packed(sequences())
    num_tokens = sum(LENGTHS)
    query = torch.randn(1, 4, num_tokens, 8, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 1, 2, num_tokens, 8, generator=generator, dtype=torch.float64)
    got = attention._by_kernel(query, key, value, batch.cu_seqlens, max(LENGTHS), 0.3, window)
    want = attention._one_by_one(query, key, value, LENGTHS, 0.3, window)
    assert got.shape == (1, num_tokens, 4, 8)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@ARCHITECTURES
def test_kernel_agrees_with_single_precision(architecture: str) -> None:
    batch = make_batch(
        [
            ScoringItem(
                context_ids=part.numpy(),
                response_ids=np.zeros(0, np.int32),
                keep=np.zeros(0, np.bool_),
                support_ids=None,
            )
            for part in sequences()
        ],
        torch.device("cuda"),
    )
    want = states(tiny(architecture, dtype=torch.float32).cuda(), batch)  # type: ignore[arg-type]
    model = tiny(architecture, dtype=torch.bfloat16).cuda()  # type: ignore[arg-type]
    got = states(model, batch)
    got.float().square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(g.isfinite().all() for g in gradients(model).values())
    torch.testing.assert_close(got.float(), want, rtol=0.1, atol=0.1)


UNPACKABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "gemma2": (lambda: transformers.Gemma2Config(head_dim=16, **SHAPE), "attn_logit_softcapping is set"),
    "lfm2": (lambda: transformers.Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"]), "layers conv carry"),
    "mamba": (lambda: transformers.MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=1), "attention"),
    "codegen": (
        lambda: transformers.CodeGenConfig(vocab_size=61, n_embd=32, n_head=4, n_layer=1, rotary_dim=4),
        "cannot be replaced",
    ),
}


@pytest.mark.parametrize("architecture", UNPACKABLE)
def test_models_that_leak_between_sequences_are_refused(architecture: str) -> None:
    make_config, reason = UNPACKABLE[architecture]
    model: PreTrainedModel = AutoModelForCausalLM.from_config(make_config())  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match=reason) as caught:
        require_packable(model)
    assert "\n" not in str(caught.value)
    assert "allowed:" in str(caught.value)


@ARCHITECTURES
def test_supported_models_are_not_refused(architecture: str) -> None:
    require_packable(tiny(architecture))


def test_call_without_the_lengths_is_refused() -> None:
    with pytest.raises(ModelError, match=r"without attention_arguments\(batch\)"):
        tiny("llama").base_model(input_ids=torch.ones(1, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("extra", "message"), [({"dropout": 0.1}, "dropout"), ({"softcap": 30.0}, "softcap"), ({"s_aux": 1}, "s_aux")]
)
def test_what_is_not_computed_is_refused(extra: dict[str, Any], message: str) -> None:
    batch, heads = packed(sequences()), torch.zeros(1, 2, sum(LENGTHS), 4)
    with pytest.raises(ModelError, match=message):
        packed_attention(torch.nn.Identity(), heads, heads, heads, None, **attention_arguments(batch), **extra)


def saved_elements(model: PreTrainedModel, batch: ScoringBatch) -> int:
    """Elements that autograd keeps for the backward pass; gradients are left in the model."""
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = score(states(model, batch))
    out.backward()  # type: ignore[no-untyped-call]
    return sum(kept)


@ARCHITECTURES
@pytest.mark.parametrize("training", [False, True])
def test_recomputation_gives_the_same_gradients_and_keeps_less(architecture: str, training: bool) -> None:
    batch, plain = packed(sequences()), tiny(architecture).train(training)
    names = list(plain.state_dict())
    recomputing = copy.deepcopy(plain)
    enable_gradient_checkpointing(decoder_layers(recomputing))
    assert list(recomputing.state_dict()) == names
    assert saved_elements(recomputing, batch) < 0.3 * saved_elements(plain, batch)
    want = gradients(plain)
    for name, gradient in gradients(recomputing).items():
        assert torch.equal(gradient, want[name]), name


def test_copy_of_a_recomputing_model_trains_its_own_layers() -> None:
    batch, model = packed(sequences()), tiny("llama")
    enable_gradient_checkpointing(decoder_layers(model))
    copied = copy.deepcopy(model)
    score(states(copied, batch)).backward()  # type: ignore[no-untyped-call]
    assert len(gradients(copied)) == len(list(copied.base_model.named_parameters()))
    assert not gradients(model)
