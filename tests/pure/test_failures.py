"""Errors as a person reads them, and the limit on lost attempts."""

import asyncio

import pytest

from orchestrator.failures import check_dropped_fraction, one_line, root_cause
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, InfrastructureError, LearnerDied

CONFIG = RunConfig()


def test_root_cause_prefers_bad_input_then_a_dead_learner() -> None:
    inner = BaseExceptionGroup("g", [asyncio.CancelledError(), InfrastructureError("x"), LearnerDied("y")])
    assert isinstance(root_cause(inner), LearnerDied)
    with_input = BaseExceptionGroup("h", [inner, ConfigError("bad")])
    assert one_line(root_cause(with_input)) == "bad"


def test_a_run_that_loses_too_many_attempts_stops() -> None:
    check_dropped_fraction(0.2, RunConfig())
    with pytest.raises(InfrastructureError, match=r"21% of a batch's attempts.*env\.max_dropped_fraction=20%"):
        check_dropped_fraction(0.21, RunConfig())


def test_the_most_frequent_reason_is_named() -> None:
    errors = ["the engine is away", None, "the image is missing", "the engine is away"]
    check_dropped_fraction(0.2, CONFIG, errors=errors)
    with pytest.raises(InfrastructureError) as refused:
        check_dropped_fraction(0.4, CONFIG, errors=errors)
    assert str(refused.value) == (
        "40% of a batch's attempts were lost to infrastructure errors; "
        "allowed: env.max_dropped_fraction=20%; most often: the engine is away"
    )
