"""The wire format of weights: buckets of named tensors as bytes, and the manifest that closes a stream.

A receiver offers `begin_update(version)`, `receive_bucket(bucket)` for each bucket, and `finish_update(manifest)`,
which returns a `WeightAudit`. A failure raises `WeightSyncError`; the receiver must not serve after it.

A stream is an iterator of `WeightBucket` that ends with one `WeightManifest`. A bucket holds at most
`bucket_bytes`, except that a single larger tensor travels in a bucket of its own. bfloat16 has no numpy type,
so tensors travel as bytes with the name of their dtype.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sdpo.config import RunConfig
from sdpo.errors import WeightSyncError
from sdpo.types import Float32, Int32, Version

Stream = Literal["policy", "teacher"]
UInt8 = NDArray[np.uint8]
DEFAULT_TOLERANCE = {"float32": 0.01, "bfloat16": 0.25}
"""Of an audit by `model.dtype`: the mean absolute difference of the probe's log-probs, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Where one tensor lies in its bucket. dtype is torch's name without the prefix, for example "bfloat16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBucket:
    """data uint8 [bytes]; digest is the SHA-256 of data."""

    index: int
    specs: tuple[TensorSpec, ...]
    data: UInt8
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """What a complete stream holds, and what a fixed probe must score under it.

    probe_ids int32 [P]; probe_log_probs float32 [P-1], of tokens 1..P-1 given their prefixes, temperature 1.
    """

    version: Version
    num_buckets: int
    num_tensors: int
    num_bytes: int
    digest: str
    probe_ids: Int32
    probe_log_probs: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightAudit:
    """What a receiver measured after an update. Differences are of the probe's log-probs, in nats."""

    version: Version
    num_bytes: int
    mean_abs_diff: float
    max_abs_diff: float


def audit_probe(manifest: "WeightManifest", log_probs: Float32, config: RunConfig) -> WeightAudit:
    """Return the audit of an update whose receiver gives the manifest's probe these log-probs, float32 [P-1].

    The mean difference decides: the rounding of one large 16-bit logit moves a single log-prob by half a nat, while a
    tensor that is missing, swapped or transposed moves most of them. Raises `WeightSyncError`.
    """
    version, expected = manifest.version, manifest.probe_log_probs
    if log_probs.shape != expected.shape:
        raise WeightSyncError(
            f"weights {version}: the probe has {len(log_probs)} log-probs, the sender sent {len(expected)}"
        )
    difference = np.abs(log_probs.astype(np.float64) - expected)
    mean, largest = float(difference.mean()), float(difference.max())
    tolerance = config.weights.audit_tolerance or DEFAULT_TOLERANCE[config.model.dtype]
    if not mean <= tolerance:  # a NaN fails as well
        raise WeightSyncError(
            f"weights {version}: the probe's log-probs differ from the learner's by {mean:.4g} on average and "
            f"{largest:.4g} at most; allowed: {tolerance:g} on average (weights.audit_tolerance)"
        )
    return WeightAudit(version=version, num_bytes=manifest.num_bytes, mean_abs_diff=mean, max_abs_diff=largest)


def make_bucket(index: int, tensors: list[tuple[str, str, tuple[int, ...], UInt8]]) -> WeightBucket:
    """Join (name, dtype, shape, bytes as uint8 [n]) tensors into one bucket."""
    specs, offset = [], 0
    for name, dtype, shape, raw in tensors:
        specs.append(TensorSpec(name=name, dtype=dtype, shape=shape, offset=offset, num_bytes=raw.nbytes))
        offset += raw.nbytes
    data = np.concatenate([raw for *_, raw in tensors]) if tensors else np.empty(0, np.uint8)
    return WeightBucket(index=index, specs=tuple(specs), data=data, digest=_sha256(data))


def make_buckets(
    tensors: Iterable[tuple[str, str, tuple[int, ...], UInt8]], bucket_bytes: int
) -> Iterator[WeightBucket]:
    """Group a stream of tensors into buckets, holding one bucket at a time."""
    held: list[tuple[str, str, tuple[int, ...], UInt8]] = []
    held_bytes, index = 0, 0
    for tensor in tensors:
        if held and held_bytes + tensor[3].nbytes > bucket_bytes:
            yield make_bucket(index, held)
            held, held_bytes, index = [], 0, index + 1
        held.append(tensor)
        held_bytes += tensor[3].nbytes
    if held:
        yield make_bucket(index, held)


class StreamTally:
    """Counts and hashes a stream on either end, so that both ends can be compared.

    The digest covers every tensor's name, dtype and shape and every bucket's digest, in order.
    """

    def __init__(self) -> None:
        self.num_buckets = self.num_tensors = self.num_bytes = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def add(self, bucket: WeightBucket) -> None:
        """Raises `WeightSyncError` if the bucket is out of order or its bytes are not what was sent."""
        if bucket.index != self.num_buckets:
            raise WeightSyncError(f"weight bucket {bucket.index} arrived, expected {self.num_buckets}")
        if _sha256(bucket.data) != bucket.digest:
            raise WeightSyncError(f"weight bucket {bucket.index} arrived with a wrong SHA-256")
        if not _specs_cover_data(bucket):
            raise WeightSyncError(f"weight bucket {bucket.index} arrived with tensors that do not cover its bytes")
        self.num_buckets += 1
        self.num_tensors += len(bucket.specs)
        self.num_bytes += bucket.data.nbytes
        for spec in bucket.specs:
            self._hash.update(f"{spec.name} {spec.dtype} {spec.shape}\n".encode())
        self._hash.update(bucket.digest.encode())

    def announce(self, name: str, dtype: str, shape: tuple[int, ...], num_bytes: int) -> None:
        """Count one tensor that travels outside of buckets; its bytes are not hashed."""
        self.num_tensors += 1
        self.num_bytes += num_bytes
        self._hash.update(f"{name} {dtype} {shape}\n".encode())

    def check(self, manifest: WeightManifest) -> None:
        """Raises `WeightSyncError` unless everything that the manifest names has arrived."""
        for key in ("num_buckets", "num_tensors", "num_bytes", "digest"):
            got, want = getattr(self, key), getattr(manifest, key)
            if got != want:
                raise WeightSyncError(f"weights {manifest.version}: {key} is {got}, the sender counted {want}")


def _sha256(data: UInt8) -> str:
    return hashlib.sha256(data.data).hexdigest()


def _specs_cover_data(bucket: WeightBucket) -> bool:
    """Whether the tensors lie one behind the other and fill the bucket."""
    end = 0
    for spec in bucket.specs:
        if spec.offset != end or spec.num_bytes < 0:
            return False
        end += spec.num_bytes
    return end == bucket.data.nbytes
