"""A causal LM's log-probs and gradients from packed batches, against the whole logits of one sequence at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from learner.backends.fsdp2 import Fsdp2Backend
from learner.batch import ScoringItem, make_batch, support_ids_of
from learner.model import load_causal_lm
from learner.scoring import ScoreRequest, ScoringModel, TokenLogProbs, mixed_forward
from sdpo.errors import InfrastructureError, ModelError
from tests.fixtures.backend import watch_gradients
from tests.fixtures.learner import make_config, one_rank, random_rollout, random_rollouts
from tests.fixtures.tiny_models import make_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("untied"), tie_word_embeddings=False, seed=3)


def items_of(count: int, support: int = 5) -> list[ScoringItem]:
    return [
        ScoringItem(
            context_ids=r.prompt_ids, response_ids=r.response_ids, keep=r.model_mask, support_ids=support_ids_of(r)
        )
        for r in random_rollouts(count, support=support)
    ]


def request_of(items: list[ScoringItem], **more: Any) -> ScoreRequest:
    return ScoreRequest(batch=make_batch(items, CPU), temperature=0.8, support="given", **more)


@torch.no_grad()
def score(folder: Path, items: list[ScoringItem], chunk: int = 7) -> TokenLogProbs:
    found = ScoringModel(load_causal_lm(str(folder), torch.float32), chunk)(request_of(items)).log_probs
    assert isinstance(found, TokenLogProbs)
    return found


def plain(model: Any, item: ScoringItem, temperature: float = 0.8) -> TokenLogProbs:
    """One sequence, full logits, plain log-softmax in float64."""
    ids = torch.from_numpy(np.concatenate([item.context_ids, item.response_ids]).astype(np.int64))
    keep = torch.from_numpy(item.keep)
    logits = model(ids[None]).logits[0, len(item.context_ids) - 1 : -1].double() / temperature
    return from_logits(logits[keep], ids[len(item.context_ids) :][keep], item)


def from_logits(logits: Tensor, sampled_ids: Tensor, item: ScoringItem) -> TokenLogProbs:
    assert item.support_ids is not None
    log_probs = logits.log_softmax(-1)
    support_ids = torch.from_numpy(item.support_ids[item.keep].astype(np.int64))
    support = log_probs.gather(1, support_ids)
    return TokenLogProbs(
        sampled=log_probs.gather(1, sampled_ids[:, None])[:, 0],
        support_ids=support_ids,
        support=support,
        tail=torch.log1p(-support.exp().sum(-1)),
        entropy=-(log_probs.exp() * log_probs).sum(-1),
    )


def joined_loss(found: TokenLogProbs, _: slice) -> Tensor:
    assert found.support is not None
    assert found.tail is not None
    return found.sampled.square() + (found.support.exp() * found.support).sum(-1) + found.tail


def assert_close(got: TokenLogProbs, want: TokenLogProbs, tolerance: float) -> None:
    for name in ("sampled", "support", "tail", "entropy"):
        torch.testing.assert_close(
            getattr(got, name).double(), getattr(want, name).detach().double(), rtol=tolerance, atol=tolerance
        )


def test_scores_equal_whole_logits(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for item in items_of(6):
        assert_close(score(folder, [item]), plain(model, item), 1e-4)


def test_bins_are_a_distribution(folder: Path) -> None:
    scores = score(folder, items_of(8))
    assert scores.support is not None
    assert scores.tail is not None
    total = scores.support.exp().sum(-1) + scores.tail.exp()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)


def test_company_does_not_matter(folder: Path) -> None:
    items = items_of(8)
    alone = [score(folder, [item]) for item in items]
    fields = zip(*alone, strict=True)
    assert_close(score(folder, items), TokenLogProbs(*(torch.cat(list(field)) for field in fields)), 1e-5)


def plain_gradients(folder: Path, items: list[ScoringItem]) -> dict[str, Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.stack([joined_loss(plain(model, item), slice(None)).sum() for item in items]).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        assert (got[name] - gradient).norm() <= 2e-5 * gradient.norm(), name


@pytest.mark.parametrize(("model", "chunk"), [("folder", 1), ("folder", 9), ("untied", 1000)])
def test_gradients_of_every_parameter_equal_the_plain_way(
    model: str, chunk: int, request: pytest.FixtureRequest
) -> None:
    path, items = request.getfixturevalue(model), items_of(4)
    scoring = ScoringModel(load_causal_lm(str(path), torch.float32), chunk)
    scoring(request_of(items, loss=joined_loss)).total.backward()
    names = dict(scoring.hf_model.named_parameters())
    assert ("lm_head.weight" in names) == (model == "untied")
    assert_same_gradients({n: p.grad for n, p in names.items() if p.grad is not None}, plain_gradients(path, items))


@pytest.mark.parametrize("model", ["folder", "untied"])
def test_sharded_head_sees_the_gathered_weight(model: str, request: pytest.FixtureRequest) -> None:
    """The weight is held twice (three times when tied), and sharding replaces the parameter in all places."""
    path, items = request.getfixturevalue(model), items_of(4)
    with one_rank(make_config(path)) as learner:
        backend = learner._backend
        assert isinstance(backend, Fsdp2Backend)
        scoring, seen = backend._model, watch_gradients(backend)
        assert scoring.head.weight is scoring.hf_model.get_output_embeddings().weight
        for _ in range(2):  # two micro-batches: gathered, resharded and gathered again
            scored = backend.forward(request_of(items, loss=joined_loss))
            assert scored.total is not None
            backend.backward(scored.total / 2)
        backend.update(0.0)
        (got,) = seen
    assert_same_gradients(got, plain_gradients(path, items))


def test_gradients_need_a_loss(folder: Path) -> None:
    with pytest.raises(ValueError, match="loss=None with gradients enabled"):
        ScoringModel(load_causal_lm(str(folder), torch.float32), 7)(request_of(items_of(1)))


def test_mixture_of_models_equals_mixed_whole_logits(folder: Path, untied: Path) -> None:
    parts = [(ScoringModel(load_causal_lm(str(f), torch.float32), 3), w) for f, w in ((folder, 0.7), (untied, 0.3))]
    items = items_of(3)
    mixed = mixed_forward(parts, request_of(items, loss=joined_loss))
    assert mixed.total is not None
    assert not mixed.total.requires_grad
    start = 0
    for item in items:
        ids = torch.from_numpy(np.concatenate([item.context_ids, item.response_ids]).astype(np.int64))
        logits = torch.zeros((), dtype=torch.float64)
        for path, weight in ((folder, 0.7), (untied, 0.3)):
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            logits = logits + weight * model(ids[None]).logits[0].double() / 0.8
        keep, first = torch.from_numpy(item.keep), len(item.context_ids)
        rows = slice(start, start := start + int(item.keep.sum()))
        got = TokenLogProbs(*(None if field is None else field[rows] for field in mixed.log_probs))  # type: ignore[arg-type]
        assert_close(got, from_logits(logits[first - 1 : -1][keep], ids[first:][keep], item), 1e-4)


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
