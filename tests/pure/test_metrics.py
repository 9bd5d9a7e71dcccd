"""Estimates of success and their intervals."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.metrics import (
    best_at_k,
    bootstrap_interval,
    interval_over_tasks,
    pass_at_k,
    wilson_interval,
)
from tests.oracle.discovery import discovery_at_k, mean_discovery_at_k, truncated_mean_attempts

G10 = json.loads((Path(__file__).parents[1] / "golden" / "sdpo_cases.json").read_text())["G10_passk_discovery"]


@pytest.mark.parametrize("successes", list(G10["pass_at_64_n2944"]))
def test_g10_pass_at_64(successes: str) -> None:
    assert pass_at_k(2944, int(successes), 64) == pytest.approx(G10["pass_at_64_n2944"][successes], abs=1e-9)


def test_g10_hard_and_very_hard_questions() -> None:
    """Below 0.03: at most 1 success in 2944. Below 0.5: at most 31."""
    assert [pass_at_k(2944, c, 64) < 0.03 for c in (1, 2)] == [True, False]
    assert [pass_at_k(2944, c, 64) < 0.5 for c in (31, 32)] == [True, False]


@pytest.mark.parametrize("k", list(G10["discovery_at_k_mean_over_questions"]))
def test_g10_discovery_at_k(k: str) -> None:
    got = mean_discovery_at_k(G10["discovery_times_by_question_seed"], int(k))
    assert got == pytest.approx(G10["discovery_at_k_mean_over_questions"][k], abs=1e-9)


def test_g10_truncated_mean_attempts() -> None:
    got = [truncated_mean_attempts(runs, G10["budget"]) for runs in G10["discovery_times_by_question_seed"]]
    assert got == pytest.approx(G10["truncated_mean_time_per_question"], abs=1e-9)


def test_discovery_by_best_of_k_has_pass_at_k_as_its_mean() -> None:
    """Over all orders of 6 attempts with 2 successes."""
    orders = list(itertools.permutations([True, True, False, False, False, False]))
    firsts = [order.index(True) + 1 for order in orders]
    for k in range(1, 7):
        assert discovery_at_k(firsts, k) == pytest.approx(pass_at_k(6, 2, k), abs=1e-12)


@pytest.mark.parametrize(("firsts", "k"), [([], 1), ([3], 0), ([0], 1), ([None, -2], 1)])
def test_discovery_refuses_what_is_no_count(firsts: list[int | None], k: int) -> None:
    for refuse in (lambda: discovery_at_k(firsts, k), lambda: truncated_mean_attempts(firsts, k)):
        with pytest.raises(ValueError, match="at least one run"):
            refuse()
    with pytest.raises(ValueError, match="at least one task"):
        mean_discovery_at_k([], 1)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_success(outcomes: list[bool], k: int) -> None:
    k = min(k, len(outcomes))
    subsets = list(itertools.combinations(outcomes, k))
    expected = sum(any(s) for s in subsets) / len(subsets)
    assert pass_at_k(len(outcomes), sum(outcomes), k) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=8), st.integers(1, 8))
def test_best_at_k_is_the_mean_of_the_best_of_all_subsets(rewards: list[float], k: int) -> None:
    k = min(k, len(rewards))
    bests = [max(subset) for subset in itertools.combinations(rewards, k)]
    assert best_at_k(rewards, k) == pytest.approx(sum(bests) / len(bests), abs=1e-12)
    with pytest.raises(ValueError, match=f"k={len(rewards) + 1}: allowed: from 1 to {len(rewards)}"):
        best_at_k(rewards, len(rewards) + 1)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5)])
def test_pass_at_k_refuses_counts_that_do_not_fit(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"num_samples={n}, num_successes={c}, k={k}"):
        pass_at_k(n, c, k)


def test_wilson_against_known_values() -> None:
    assert wilson_interval(1, 10) == pytest.approx((0.017876, 0.404150), abs=1e-5)
    assert wilson_interval(50, 100) == pytest.approx((0.403832, 0.596168), abs=1e-5)
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)


@settings(deadline=None)
@given(st.integers(1, 200), st.data())
def test_wilson_holds_the_estimate_and_mirrors(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n))
    low, high = wilson_interval(c, n)
    assert 0 <= low <= c / n + 1e-12
    assert c / n - 1e-12 <= high <= 1
    assert wilson_interval(n - c, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        low, high = bootstrap_interval(rng.binomial(1, 0.3, 60).tolist(), num_resamples=300)
        covered += low <= 0.3 <= high
    assert 85 <= covered <= 100


def test_bootstrap_is_deterministic_and_needs_values() -> None:
    values = [0.0, 0.25, 1.0, 0.5]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval([0.5] * 4) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])


def test_interval_over_tasks_is_wilsons_for_single_samples_and_else_resamples_tasks() -> None:
    binary = interval_over_tasks([1.0] * 3 + [0.0] * 7)
    assert binary is not None
    assert (binary.low, binary.high, binary.method) == (*wilson_interval(3, 10), "wilson")
    rates = interval_over_tasks([0.0, 0.25, 1.0, 0.5])
    assert rates is not None
    assert (rates.low, rates.high, rates.method) == (*bootstrap_interval([0.0, 0.25, 1.0, 0.5]), "bootstrap")
    none_passed = interval_over_tasks([0.0] * 16)
    assert none_passed is not None
    assert none_passed.low == 0.0
    assert none_passed.high > 0.1
    assert interval_over_tasks([0.5]) is None
