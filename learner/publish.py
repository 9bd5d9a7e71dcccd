"""Sending weights: whole tensors one at a time, grouped into buckets."""

from collections.abc import Callable, Iterable, Iterator

import torch

from learner.batch import make_batch, whole_response
from learner.scoring import Scored, ScoreRequest
from sdpo.types import Float32, Int32, Version
from sdpo.weights import StreamTally, UInt8, WeightBucket, WeightManifest, make_buckets

RawTensor = tuple[str, str, tuple[int, ...], UInt8]


def weight_buckets(tensors: Iterable[tuple[str, torch.Tensor]], bucket_bytes: int) -> Iterator[WeightBucket]:
    """Yield the stream's buckets. Holds one bucket and one tensor at a time; a collective if `tensors` is."""
    return make_buckets((_raw(name, tensor) for name, tensor in tensors), bucket_bytes)


def manifest_of(tally: StreamTally, version: Version, probe_ids: Int32, probe_log_probs: Float32) -> WeightManifest:
    """Close a stream whose buckets went through `tally`."""
    return WeightManifest(
        version=version,
        num_buckets=tally.num_buckets,
        num_tensors=tally.num_tensors,
        num_bytes=tally.num_bytes,
        digest=tally.digest,
        probe_ids=probe_ids,
        probe_log_probs=probe_log_probs,
    )


@torch.no_grad()
def probe_log_probs(score: Callable[[ScoreRequest], Scored], probe_ids: Int32, device: torch.device) -> Float32:
    """Return float32 [P-1]: log-probs of tokens 1..P-1 given their prefixes at temperature 1. A collective if `score`
    is.
    """
    batch = make_batch([whole_response(probe_ids[:1], probe_ids[1:])], device)
    request = ScoreRequest(batch=batch, temperature=1.0, support=None)
    log_probs: Float32 = score(request).log_probs.sampled.cpu().numpy()
    return log_probs


def _raw(name: str, tensor: torch.Tensor) -> RawTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return name, dtype, tuple(tensor.shape), tensor.cpu().reshape(-1).view(torch.uint8).numpy()
