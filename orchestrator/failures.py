"""Error reporting: the root cause of a failed run as one line, and the limit on lost attempts."""

from collections import Counter
from collections.abc import Iterable, Iterator

from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError, LearnerDied, SdpoError, UserError
from sdpo.show import show_error

_FIRST = (UserError, LearnerDied, SdpoError, Exception)


def root_cause(error: BaseException) -> BaseException:
    """Return the most informative leaf of an exception group: bad input, then a dead learner, then any other error."""
    leaves = list(_leaves(error))
    for kind in _FIRST:
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def one_line(error: BaseException) -> str:
    """Return the message of an error without Ray's remote traceback and advice."""
    cause = getattr(error, "cause", None)
    if not isinstance(error, SdpoError):  # else ray is not imported, so that bad input is refused at once
        from ray.exceptions import OutOfMemoryError, RayActorError

        if isinstance(error, RayActorError):
            return show_error(error)
        if isinstance(error, OutOfMemoryError):  # the lines below the first list the node's processes, and advice
            return str(error).strip().splitlines()[0]
    return str(cause if isinstance(cause, SdpoError) else error).strip().splitlines()[-1]


def check_dropped_fraction(
    dropped_fraction: float, config: RunConfig, *, of: str = "a batch", errors: Iterable[str | None] = ()
) -> None:
    """Raise `InfrastructureError` when more attempts were lost than `env.max_dropped_fraction` allows.

    `errors` says why each of them was lost, None for one that was dropped with its group. The message names the most
    frequent reason.
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
