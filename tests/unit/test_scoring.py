"""Chunked log-probs against a plain computation with all logits; invariance to padding and company."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from learner.batch import ScoringItem, make_batch, support_ids_of
from learner.model import load_causal_lm
from learner.scoring import ScoringModel, TokenLogProbs
from sdpo.errors import InfrastructureError, ModelError
from tests.learner_fixtures import random_rollout, random_rollouts
from tests.tiny_models import make_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def items_of(count: int, support: int = 5) -> list[ScoringItem]:
    return [
        ScoringItem(
            context_ids=r.prompt_ids, response_ids=r.response_ids, keep=r.model_mask, support_ids=support_ids_of(r)
        )
        for r in random_rollouts(count, support=support)
    ]


def score(folder: Path, items: list[ScoringItem], chunk: int = 7, temperature: float = 0.8) -> TokenLogProbs:
    model = ScoringModel(load_causal_lm(str(folder), torch.float32), chunk)
    batch = make_batch(items, CPU)
    result = model(batch.input_ids, batch.positions, batch.sampled_ids, batch.support_ids, temperature)
    assert isinstance(result, TokenLogProbs)
    return result


def plain(folder: Path, item: ScoringItem, temperature: float) -> list[torch.Tensor]:
    """One sequence, full logits, plain log-softmax in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.from_numpy(np.concatenate([item.context_ids, item.response_ids]).astype(np.int64))
    logits = model(ids[None]).logits[0].double() / temperature
    log_probs = logits.log_softmax(-1)[len(item.context_ids) - 1 : -1][torch.from_numpy(item.keep)]
    sampled = log_probs.gather(1, ids[len(item.context_ids) :][torch.from_numpy(item.keep)][:, None])[:, 0]
    assert item.support_ids is not None
    support_ids = torch.from_numpy(item.support_ids[item.keep].astype(np.int64))
    support = log_probs.gather(1, support_ids)
    tail = torch.log1p(-support.exp().sum(-1))
    return [sampled, support, tail, -(log_probs.exp() * log_probs).sum(-1)]


def test_chunks_equal_plain_full_logits(folder: Path) -> None:
    for item in items_of(6):
        for got, want in zip(score(folder, [item]), plain(folder, item, 0.8), strict=True):
            assert got is not None
            torch.testing.assert_close(got.detach().double(), want, rtol=1e-4, atol=1e-4)


def test_bins_are_a_distribution(folder: Path) -> None:
    scores = score(folder, items_of(8))
    assert scores.support is not None
    assert scores.tail is not None
    total = scores.support.exp().sum(-1) + scores.tail.exp()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)


def test_padding_and_company_do_not_matter(folder: Path) -> None:
    items = items_of(8)
    together = score(folder, items)
    alone = [score(folder, [item]) for item in items]
    for field in ("sampled", "support", "tail"):
        torch.testing.assert_close(
            getattr(together, field), torch.cat([getattr(s, field) for s in alone]), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunk_size_matters_neither_to_values_nor_to_gradients(folder: Path, chunk: int) -> None:
    def gradient(size: int) -> torch.Tensor:
        model = ScoringModel(load_causal_lm(str(folder), torch.float32), size)
        batch = make_batch(items_of(4), CPU)
        scores = model(batch.input_ids, batch.positions, batch.sampled_ids, batch.support_ids, 1.0)
        (scores.sampled.sum() + scores.tail.sum() + scores.support.sum()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    got, want = gradient(chunk), gradient(50)
    assert (got - want).norm() <= 1e-5 * want.norm()


def test_empty_complement_gives_no_nan(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rollout = random_rollout(rng, 0, 300, [4, 6], 1)
    vocab = np.tile(np.arange(384, dtype=np.int32), (6, 1))
    item = ScoringItem(
        context_ids=rollout.prompt_ids, response_ids=rollout.response_ids, keep=np.ones(6, bool), support_ids=vocab
    )
    model = ScoringModel(load_causal_lm(str(folder), torch.float32), 4)
    batch = make_batch([item], CPU)
    scores = model(batch.input_ids, batch.positions, batch.sampled_ids, batch.support_ids, 1.0)
    assert (scores.tail < -1000).all()
    (scores.tail.exp() * scores.tail + scores.support.sum(-1)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_support_of_a_two_turn_attempt_covers_the_environments_words() -> None:
    rollout = random_rollout(np.random.default_rng(0), 0, 300, [4, 3, 2, 5], 6)
    ids = support_ids_of(rollout)
    assert ids.shape == (10, 6)
    assert (ids[3:5] == np.arange(6)).all()
    assert (ids[5:] == rollout.segments[2].support_ids).all()


def test_attempt_without_support_is_refused() -> None:
    rollout = random_rollout(np.random.default_rng(0), 3, 300, [4, 6], 0)
    with pytest.raises(InfrastructureError, match="task-3#3 carries no support"):
        support_ids_of(rollout)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x09" * 64), "missing or damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "missing or damaged"),
        (lambda f: (f / "config.json").write_text('{"model_type": "no-such-model"}'), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
    ],
)
def test_broken_model_folder_is_one_line(tmp_path: Path, break_it: object, words: str) -> None:
    make_tiny_model(tmp_path)
    break_it(tmp_path)  # type: ignore[operator]
    with pytest.raises(ModelError, match=words) as caught:
        load_causal_lm(str(tmp_path), torch.float32)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
