"""The teacher's average on a learner: the golden series, and that swapping it in leaves nothing behind."""

from pathlib import Path

import pytest
import torch

from tests.fixtures.learner import VERSION, make_config, masters, one_rank, random_experiences, train_calls
from tests.fixtures.tiny_models import make_tiny_model


def test_average_follows_the_golden_series(tmp_path: Path) -> None:
    config = make_config(make_tiny_model(tmp_path), teacher={"regularisation": {"kind": "ema", "rate": 0.05}})
    with one_rank(config) as learner:
        ema = learner._ema
        assert ema is not None
        for average, master in zip(ema.tensors.values(), learner._backend.masters.values(), strict=True):
            average.fill_(1.0)
            master.fill_(2.0)
        for want in (1.05, 1.0975, 1.142625, 1.18549375, 1.2262190625):
            ema.update()
            assert all(float(tensor.mean()) == pytest.approx(want, rel=1e-6) for tensor in ema.tensors.values())


def test_publishing_the_teacher_leaves_student_and_average_alone(tmp_path: Path) -> None:
    experiences = random_experiences(4)
    with one_rank(make_config(make_tiny_model(tmp_path), dtype="bfloat16")) as learner:
        learner.train(*train_calls(experiences)[0])
        assert learner._ema is not None
        student, average = masters(learner), {n: t.clone() for n, t in learner._ema.tensors.items()}
        list(learner.publish("teacher", VERSION, experiences[0].rollout.prompt_ids))
        assert all(torch.equal(student[n], w) for n, w in masters(learner).items())
        assert all(torch.equal(average[n], t) for n, t in learner._ema.tensors.items())
        assert any(not torch.equal(average[n], t) for n, t in learner._backend.masters.items())
