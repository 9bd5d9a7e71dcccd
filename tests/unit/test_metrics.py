"""Estimates of success and their intervals."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.metrics import bootstrap_interval, mean_pass_at_k, pass_at_k, wilson_interval

G10 = json.loads((Path(__file__).parents[1] / "golden" / "sdpo_cases.json").read_text())["G10_passk_discovery"]


@pytest.mark.parametrize("successes", list(G10["pass_at_64_n2944"]))
def test_g10_pass_at_64(successes: str) -> None:
    assert pass_at_k(2944, int(successes), 64) == pytest.approx(G10["pass_at_64_n2944"][successes], abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_success(outcomes: list[bool], k: int) -> None:
    k = min(k, len(outcomes))
    subsets = list(itertools.combinations(outcomes, k))
    expected = sum(any(s) for s in subsets) / len(subsets)
    assert pass_at_k(len(outcomes), sum(outcomes), k) == pytest.approx(expected, abs=1e-12)


def test_mean_pass_at_1_is_the_mean_rate_over_tasks() -> None:
    assert mean_pass_at_k([(4, 1), (2, 2)], 1) == pytest.approx((0.25 + 1) / 2)
    with pytest.raises(ValueError, match="at least one task"):
        mean_pass_at_k([], 1)


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
