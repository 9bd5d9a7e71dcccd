"""The audit of a weight update by the probe's log-probs."""

import numpy as np
import pytest

from sdpo.config import RunConfig
from sdpo.errors import WeightSyncError
from sdpo.types import Float32, Version
from sdpo.weights import WeightManifest, audit_probe

RNG = np.random.default_rng(0)
SENT: Float32 = -RNG.exponential(2.0, 63).astype(np.float32)


def audit(got: Float32, dtype: str = "bfloat16", **weights: float) -> tuple[float, float]:
    config = RunConfig.model_validate({"model": {"path": "m", "dtype": dtype}, "weights": weights})
    manifest = WeightManifest(
        version=Version(incarnation=1, batch=0),
        num_buckets=1,
        num_tensors=1,
        num_bytes=4,
        digest="",
        probe_ids=np.arange(64, dtype=np.int32),
        probe_log_probs=SENT,
    )
    result = audit_probe(manifest, got, config)
    assert result.num_bytes == 4
    return result.mean_abs_diff, result.max_abs_diff


def noisy(scale: float) -> Float32:
    got: Float32 = (SENT + scale * RNG.standard_normal(63)).astype(np.float32)
    return got


def test_the_rounding_of_one_large_logit_is_no_fault_in_16_bits() -> None:
    got = noisy(0.05)
    got[7] += 0.6
    mean, largest = audit(got)
    assert mean < 0.08
    assert 0.4 < largest < 0.8


@pytest.mark.parametrize(("dtype", "scale"), [("bfloat16", 0.4), ("float32", 0.03)])
def test_a_difference_of_most_tokens_is_a_fault(dtype: str, scale: float) -> None:
    with pytest.raises(WeightSyncError, match=r"weights 1\.0: .* on average .*weights\.audit_tolerance"):
        audit(noisy(scale), dtype)


def test_the_bound_can_be_set_and_nan_is_always_beyond_it() -> None:
    audit(noisy(0.4), audit_tolerance=1.0)
    with pytest.raises(WeightSyncError, match="audit_tolerance"):
        audit(noisy(0.05), audit_tolerance=0.001)
    got = noisy(0.0)
    got[3] = np.nan
    with pytest.raises(WeightSyncError, match="nan"):
        audit(got, audit_tolerance=100.0)


def test_a_probe_of_another_length_is_a_fault() -> None:
    with pytest.raises(WeightSyncError, match="62 log-probs, the sender sent 63"):
        audit(SENT[:-1])
