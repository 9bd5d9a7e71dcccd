"""What ends a run, in words: from an exception group to the one error that a person should read; a broken world."""

from collections import Counter
from collections.abc import Iterable, Iterator

from ray.exceptions import RayActorError

from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError, LearnerDied, SdpoError, UserError
from sdpo.show import show_error

_FIRST = (UserError, LearnerDied, SdpoError, Exception)


def root_cause(error: BaseException) -> BaseException:
    """The leaf that says most: bad input before a dead learner before any other failure."""
    leaves = list(_leaves(error))
    for kind in _FIRST:
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def one_line(error: BaseException) -> str:
    """The message of an error, without Ray's remote traceback or its advice around it."""
    cause = getattr(error, "cause", None)
    if isinstance(error, RayActorError):
        return show_error(error)
    return str(cause if isinstance(cause, SdpoError) else error).strip().splitlines()[-1]


def refuse_a_broken_world(
    dropped_fraction: float, config: RunConfig, *, of: str = "a batch", errors: Iterable[str | None] = ()
) -> None:
    """Raises `InfrastructureError` when more attempts were lost than `env.max_dropped_fraction` allows.

    `errors`: why each of them was lost; None for one that fell with its group. The most frequent reason is named.
    """
    if dropped_fraction <= config.env.max_dropped_fraction:
        return
    known = Counter(error for error in errors if error)
    most = f"; most often: {known.most_common(1)[0][0]}" if known else ""
    raise InfrastructureError(
        f"{dropped_fraction:.0%} of {of}'s attempts were lost to infrastructure errors; "
        f"allowed: env.max_dropped_fraction={config.env.max_dropped_fraction:.0%}{most}"
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
