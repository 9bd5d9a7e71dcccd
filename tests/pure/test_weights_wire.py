"""The wire format of weights: nothing is lost, and nothing lost goes unnoticed."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.errors import WeightSyncError
from sdpo.types import Version
from sdpo.weights import StreamTally, UInt8, WeightBucket, WeightManifest, make_buckets

Tensors = list[tuple[str, str, tuple[int, ...], UInt8]]
SIZES = (40, 24, 8, 300, 16)


def make_tensors(sizes: tuple[int, ...] = SIZES) -> Tensors:
    rng = np.random.default_rng(0)
    return [(f"layer.{i}", "bfloat16", (n // 2,), rng.integers(0, 256, n, np.uint8)) for i, n in enumerate(sizes)]


def manifest_for(buckets: list[WeightBucket]) -> WeightManifest:
    tally = StreamTally()
    for bucket in buckets:
        tally.add(bucket)
    return WeightManifest(
        version=Version(incarnation=0, batch=1),
        num_buckets=tally.num_buckets,
        num_tensors=tally.num_tensors,
        num_bytes=tally.num_bytes,
        digest=tally.digest,
        probe_ids=np.zeros(2, np.int32),
        probe_log_probs=np.zeros(1, np.float32),
    )


def receive(buckets: list[WeightBucket], manifest: WeightManifest) -> None:
    tally = StreamTally()
    for bucket in buckets:
        tally.add(bucket)
    tally.check(manifest)


def unpack(buckets: list[WeightBucket]) -> Tensors:
    return [(s.name, s.dtype, s.shape, b.data[s.offset : s.offset + s.num_bytes]) for b in buckets for s in b.specs]


@settings(deadline=None)
@given(st.lists(st.integers(0, 100).map(lambda n: 2 * n), max_size=12), st.integers(1, 300))
def test_round_trip(sizes: list[int], bucket_bytes: int) -> None:
    tensors = make_tensors(tuple(sizes))
    buckets = list(make_buckets(iter(tensors), bucket_bytes))
    receive(buckets, manifest_for(buckets))
    for got, want in zip(unpack(buckets), tensors, strict=True):
        assert got[:3] == want[:3]
        np.testing.assert_array_equal(got[3], want[3])
    for bucket in buckets:
        assert bucket.data.nbytes <= bucket_bytes or len([s for s in bucket.specs if s.num_bytes]) == 1


def test_one_bucket_is_held_at_a_time() -> None:
    drawn = []
    tensors = make_tensors((10, 10, 10, 10))

    def stream() -> Iterator[tuple[str, str, tuple[int, ...], UInt8]]:
        for tensor in tensors:
            drawn.append(tensor[0])
            yield tensor

    buckets = make_buckets(stream(), 20)
    next(buckets)
    assert len(drawn) == 3


def corrupted(bucket: WeightBucket) -> WeightBucket:
    data = bucket.data.copy()
    data[0] ^= 1
    return dataclasses.replace(bucket, data=data)


def test_corrupt_bytes_are_noticed() -> None:
    buckets = list(make_buckets(make_tensors(), 64))
    with pytest.raises(WeightSyncError, match="bucket 0 arrived with a wrong SHA-256"):
        receive([corrupted(buckets[0]), *buckets[1:]], manifest_for(buckets))


def test_missing_repeated_and_reordered_buckets_are_noticed() -> None:
    buckets = list(make_buckets(make_tensors(), 64))
    assert len(buckets) == 4
    manifest = manifest_for(buckets)
    with pytest.raises(WeightSyncError, match="bucket 2 arrived, expected 1"):
        receive([buckets[0], buckets[2]], manifest)
    with pytest.raises(WeightSyncError, match="bucket 0 arrived, expected 1"):
        receive([buckets[0], *buckets], manifest)
    with pytest.raises(WeightSyncError, match=r"weights 0\.1: num_buckets is 3, the sender counted 4"):
        receive(buckets[:-1], manifest)
    with pytest.raises(WeightSyncError, match="num_buckets is 0"):
        receive([], manifest)


@pytest.mark.parametrize("change", [{"name": "layer.9"}, {"dtype": "float16"}, {"shape": (4, 5)}])
def test_a_changed_name_dtype_or_shape_is_noticed(change: dict[str, object]) -> None:
    buckets = list(make_buckets(make_tensors(), 64))
    first, *rest = buckets[0].specs
    renamed = dataclasses.replace(buckets[0], specs=(dataclasses.replace(first, **change), *rest))  # type: ignore[arg-type]
    with pytest.raises(WeightSyncError, match="digest is"):
        receive([renamed, *buckets[1:]], manifest_for(buckets))


@pytest.mark.parametrize("change", [{"offset": 2}, {"num_bytes": 4}, {"num_bytes": 10_000}])
def test_tensors_that_do_not_cover_their_bucket_are_noticed(change: dict[str, int]) -> None:
    buckets = list(make_buckets(make_tensors(), 64))
    first, *rest = buckets[0].specs
    shifted = dataclasses.replace(buckets[0], specs=(dataclasses.replace(first, **change), *rest))  # type: ignore[arg-type]
    with pytest.raises(WeightSyncError, match="do not cover its bytes"):
        StreamTally().add(shifted)


def test_bytes_swapped_between_streams_are_noticed() -> None:
    old, new = list(make_buckets(make_tensors(), 64)), list(make_buckets(make_tensors()[::-1], 64))
    with pytest.raises(WeightSyncError, match="weights"):
        receive(old, manifest_for(new))


def announced(names: tuple[str, ...]) -> StreamTally:
    tally = StreamTally()
    for name in names:
        tally.announce(name, "bfloat16", (3, 4), 24)
    return tally


def test_tensors_outside_of_buckets_are_counted_by_name_and_order() -> None:
    sent = announced(("a", "b"))
    manifest = dataclasses.replace(
        manifest_for([]), num_tensors=sent.num_tensors, num_bytes=sent.num_bytes, digest=sent.digest
    )
    announced(("a", "b")).check(manifest)
    with pytest.raises(WeightSyncError, match="num_tensors is 1, the sender counted 2"):
        announced(("a",)).check(manifest)
    with pytest.raises(WeightSyncError, match="digest is"):
        announced(("b", "a")).check(manifest)
    with pytest.raises(WeightSyncError, match="num_buckets is 4"):
        receive(list(make_buckets(make_tensors(), 64)), manifest)
