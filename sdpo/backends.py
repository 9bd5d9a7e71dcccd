"""The learner's backends: one line each, which declares what the run file, doctor and resuming have to know.

The code is in the module that the line names: it offers `make(hf_model, config, device)`, which returns a
`learner.backends.base.Backend`, and `open_stored(folder, part, ranks)`, which reads a checkpoint outside of a gang.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """What a backend needs and holds. Masters, AdamW and gradients are float32 and sharded unless said otherwise."""

    module: str
    """Module with `make` and `open_stored`."""
    extra: str | None = None
    """The extra of the package `sdpo` that brings what it imports."""
    reshards: bool = False
    """A checkpoint can be loaded by another number of ranks than saved it."""
    whole_weights: bool = False
    """Every rank holds all weights in the compute dtype."""
    copies_weights: bool = False
    """The trained weights are held a second time in the compute dtype, sharded."""
    whole_gradients: bool = False
    """Every rank holds all gradients."""
    reduce_bucket: int = 0
    """Elements of the buffer through which gradients are reduced."""


_ZERO = "learner.backends.zero"
_ZERO_BUCKET = 500_000_000
BACKENDS = {
    "fsdp2": BackendSpec(module="learner.backends.fsdp2", reshards=True),
    "zero1": BackendSpec(
        module=_ZERO, extra="deepspeed", whole_weights=True, whole_gradients=True, reduce_bucket=_ZERO_BUCKET
    ),
    "zero2": BackendSpec(module=_ZERO, extra="deepspeed", whole_weights=True, reduce_bucket=_ZERO_BUCKET),
    "zero3": BackendSpec(module=_ZERO, extra="deepspeed", copies_weights=True, reduce_bucket=_ZERO_BUCKET),
}
"""By the name that `learner.backend` takes."""
