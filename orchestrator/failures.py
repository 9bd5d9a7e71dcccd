"""From an exception group to the one error that a person should read."""

from collections.abc import Iterator

from ray.exceptions import RayActorError

from sdpo.errors import LearnerDied, SdpoError, UserError

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
        return " ".join(str(error).split())[:300]
    return str(cause if isinstance(cause, SdpoError) else error).strip().splitlines()[-1]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
