"""FSDP2 and DeepSpeed ZeRO 1, 2, 3 on one and two ranks: one trajectory, resuming and reading
checkpoints, adapters, steps not taken."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from learner.model import checkpoint_names
from learner.stored import ModelFolder, open_stored, whole_tensors
from sdpo.config import RunConfig
from sdpo.errors import CheckpointError, ModelError
from tests.fixtures import backend_gang as gang
from tests.fixtures.learner import make_config, one_rank
from tests.fixtures.tiny_models import make_tiny_model

BACKENDS = ("fsdp2", "zero1", "zero2", "zero3")
STEPS = range(20)
CLIP = 1e-3
"""Some steps are clipped, some are not."""
IDS = np.arange(3, 43, dtype=np.int32)
LORA = {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "down_proj"]}


@pytest.fixture(scope="module")
def gangs() -> Iterator[gang.Gangs]:
    made = gang.Gangs()
    yield made
    made.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of float32 values that bfloat16 cannot hold."""
    root = tmp_path_factory.mktemp("models")
    kinds = {"tied": True, "untied": False}
    return {
        kind: make_tiny_model(root / kind, tie_word_embeddings=tied, dtype=torch.float32)
        for kind, tied in kinds.items()
    }


def config(model: Path, backend: str, ranks: int, dtype: str = "float32", **learner: Any) -> RunConfig:
    optimizer = {"learning_rate": 1e-4, "warmup_steps": 2, "max_grad_norm": CLIP}
    return make_config(
        model,
        dtype,
        learner={"backend": backend, "optimizer": optimizer} | learner,
        placement={"learner": {"ranks": ranks}},
    )


@pytest.fixture(scope="module")
def references(gangs: gang.Gangs, models: dict[str, Path]) -> dict[str, Any]:
    """FSDP2 on one rank."""
    return {kind: gangs.call(gang.trajectory, config(model, "fsdp2", 1), STEPS) for kind, model in models.items()}


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize(("backend", "ranks"), [(b, r) for b in BACKENDS for r in (1, 2)][1:])
def test_trajectory(
    gangs: gang.Gangs, models: dict[str, Path], references: dict[str, Any], backend: str, ranks: int, kind: str
) -> None:
    """Layers are recomputed in the gangs of two, which changes nothing either."""
    want, want_gradients, want_weights = references[kind]
    settings = config(models[kind], backend, ranks, gradient_checkpointing=ranks == 2)
    got, gradients, weights = gangs.call(gang.trajectory, settings, STEPS)
    loss = max(abs(g["loss"] / w["loss"] - 1) for g, w in zip(got, want, strict=True))
    norm = abs(got[0]["grad_norm"] / want[0]["grad_norm"] - 1)
    assert gradients.keys() == want_gradients.keys()
    gradient = distance(gradients, want_gradients)
    print(f"{backend} on {ranks}, {kind}: loss {loss:.1e}, first gradient {gradient:.1e}, its norm {norm:.1e}")
    assert loss <= 1e-5
    assert gradient <= 1e-6
    assert norm <= 1e-6
    assert list(weights) == list(want_weights)
    assert distance(weights, want_weights) <= 1e-4
    for key in ("active_tokens", "optimizer_step", "learning_rate"):
        assert [step[key] for step in got] == [step[key] for step in want]
    norms = [step["grad_norm"] for step in got]
    assert min(norms) < CLIP < max(norms)


def distance(left: gang.Arrays, right: gang.Arrays) -> float:
    """Norm of the difference over the norm of `right`."""
    squares = sum(float(np.square(left[name] - right[name], dtype=np.float64).sum()) for name in right)
    return float(np.sqrt(squares / sum(float(np.square(array, dtype=np.float64).sum()) for array in right.values())))


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("backend", BACKENDS)
def test_resume_to_the_bit(
    gangs: gang.Gangs, models: dict[str, Path], tmp_path: Path, backend: str, lora: dict[str, Any] | None
) -> None:
    settings, folder = config(models["tied"], backend, 2, "bfloat16", lora=lora), str(tmp_path / "checkpoint")
    want, want_weights, saved = gangs.call(gang.save_then_train, settings, folder)
    stored = stored_weights(settings, folder)
    assert stored.keys() == saved.keys()
    assert all((stored[name] == array).all() for name, array in saved.items())
    got, weights = gangs.call(gang.go_on, settings, checkpoint=folder)
    assert got == want
    assert all((weights[name] == array).all() for name, array in want_weights.items())
    alone = config(models["tied"], backend, 1, "bfloat16", lora=lora)
    if backend == "fsdp2":
        gangs.call(gang.go_on, alone, checkpoint=folder)
        other = config(models["tied"], "zero2", 2, "bfloat16", lora=lora)
        with pytest.raises(CheckpointError, match=r"written by learner.backend=fsdp2, this run has zero2"):
            gangs.call(gang.nothing, other, checkpoint=folder)
        return
    with pytest.raises(CheckpointError, match=r"2 learner ranks saved it, placement.learner.ranks=1; allowed .*: 2"):
        gangs.call(gang.nothing, alone, checkpoint=folder)
    if lora is not None:
        held = sum(path.stat().st_size for path in Path(folder).glob("zero-rank*.pt"))
        assert held < models["tied"].joinpath("model.safetensors").stat().st_size / 2


def stored_weights(config: RunConfig, folder: str) -> gang.Arrays:
    """As `gang.weights`, read from a checkpoint by this process alone."""
    base = ModelFolder(Path(config.model.path))
    found: gang.Arrays = {}
    for part, prefix in (("masters", ""), ("ema", "ema.")):
        stored = open_stored(Path(folder), part)  # type: ignore[arg-type]
        tensors = whole_tensors(stored, base, config.learner.lora, config.model.dtype, torch.float32)
        found |= {prefix + name: tensor.numpy() for name, tensor in tensors}
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_average_swapped_in_and_out(gangs: gang.Gangs, models: dict[str, Path], backend: str) -> None:
    found = gangs.call(gang.swap, config(models["untied"], backend, 2, optimizer={"learning_rate": 1e-2}), IDS)
    first, inside, last = found["scores"]
    before, after = found["weights"]
    assert all((before[name] == array).all() for name, array in after.items())
    assert (first == last).all()
    for scores, prefix in ((first, ""), (inside, "ema.")):
        held = {name: before[prefix + name] for name in before if not name.startswith("ema.")}
        np.testing.assert_allclose(scores, plain_scores(models["untied"], held), atol=1e-4)
    assert np.abs(first - inside).max() > 1e-2


def plain_scores(folder: Path, weights: gang.Arrays) -> np.ndarray[Any, Any]:
    """Log-probs of IDS[1:] by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    _, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    ids = torch.from_numpy(IDS).long()
    with torch.no_grad():
        log_probs = model(ids[None]).logits[0, :-1].log_softmax(-1)
    scores: np.ndarray[Any, Any] = log_probs.gather(1, ids[1:, None]).squeeze(1).numpy()
    return scores


@pytest.mark.parametrize("backend", BACKENDS)
def test_adapters_are_trained_and_leave_merged(
    gangs: gang.Gangs, models: dict[str, Path], tmp_path: Path, backend: str
) -> None:
    kind = "untied" if backend in ("fsdp2", "zero2") else "tied"
    settings = config(models[kind], backend, 2, lora=LORA, optimizer={"learning_rate": 1e-2})
    found = gangs.call(gang.adapters, settings, IDS, str(tmp_path / "export"))
    assert len(found["masters"]) == 2 * 2 * 2
    assert all(".lora_A." in name or ".lora_B." in name for name in found["masters"])
    assert found["gradients"] == found["masters"]
    before, after = ({n: a for n, a in w.items() if not n.startswith("ema.")} for w in found["weights"])
    assert (
        set(before) == set(after) == checkpoint_names(str(models[kind])) == checkpoint_names(str(tmp_path / "export"))
    )
    moved = {name for name in after if not (after[name] == before[name]).all()}
    assert moved == {name for name in after if "q_proj" in name or "down_proj" in name}
    np.testing.assert_allclose(found["scores"], plain_scores(models[kind], after), atol=1e-4)
    assert np.abs(found["scores"] - plain_scores(models[kind], before)).max() > 1e-2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_not_taken_leave_nothing_behind(
    gangs: gang.Gangs, models: dict[str, Path], backend: str, dtype: str
) -> None:
    settings = config(models["tied"], backend, 2, dtype)
    discarded, broken, good, start, unmoved, moved = gangs.call(gang.not_stepped, settings)
    assert [m["optimizer_step"] for m in (discarded, broken, good)] == [0, 0, 1]
    original = dict(AutoModelForCausalLM.from_pretrained(models["tied"], dtype=torch.float32).named_parameters())
    assert all((start[name] == p.detach().numpy()).all() for name, p in original.items())
    assert all((start[name] == array).all() for name, array in unmoved.items())
    assert any((moved[name] != array).any() for name, array in start.items())
    again = gangs.call(gang.first_step, settings)
    assert good["grad_norm"] == again["grad_norm"]
    assert good["loss"] == again["loss"]


def test_adapters_on_unknown_layers_are_refused(models: dict[str, Path]) -> None:
    settings = config(models["tied"], "fsdp2", 1, lora={"targets": ["q_proj", "lm_head"]})
    allowed = r"learner.lora.targets=lm_head: .*allowed: down_proj, gate_proj, .*v_proj$"
    with pytest.raises(ModelError, match=allowed), one_rank(settings):
        pass
