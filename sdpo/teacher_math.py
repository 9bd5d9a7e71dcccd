"""Teachers as formulas (paper, A.2): the trust region's mixture and the moving average's memory."""

from torch import Tensor


def geometric_mixture(initial: Tensor, current: Tensor, rate: float) -> Tensor:
    """log q with q proportional to initial^(1 - rate) current^rate, normalised over the last dimension.

    Log-probs or logits of the two models, both reading the hindsight prompt, [..., V] -> log-probs [..., V]. Logits do
    as well as log-probs: they differ by one constant per position, which becomes one constant of the mixture and is
    divided out. For the same reason the temperature may divide before or after. It must be the whole vocabulary: over
    a support alone the constant would be another.
    """
    return ((1.0 - rate) * initial + rate * current).log_softmax(-1)
