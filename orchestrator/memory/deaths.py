"""Deaths by lack of memory: recognised by what Ray, vLLM, torch and the kernel report, in one line each.

Pure but for `kernel_kills`. An actor that died this way is replaced like any other; the line is of the death that ended
the run.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.memory.run_memory import RunMemory, words
from sdpo.errors import LearnerDied, OutOfMemory, UserError

KEYS = {
    "rollout": "rollout.kv_cache_gib, rollout.max_num_seqs, model.max_model_len_tokens, placement.rollout.workers",
    "learner": "learner.tokens_per_micro_batch, learner.gradient_checkpointing, learner.lora, placement.learner.ranks",
    "teacher": "teacher.tokens_per_forward, learner.logits_chunk_tokens, placement.teacher.workers",
    "env": "env.sandbox.memory_mib, env.sandboxes_per_worker, placement.env.max_workers",
}
"""What lowers the memory of a role, the keys that change nothing else first."""
RAY_MONITOR = "killed due to the node running low on memory"
LONGEST_REASON_CHARS = 400
ALLOCATIONS = (
    "can't allocate memory",  # torch on CPU
    "cannot allocate memory",  # errno ENOMEM
    "out of memory",  # CUDA
    "std::bad_alloc",
    "memoryerror",
    "on kv cache allocation is less than requested",  # vLLM on CPU
    "no available memory for the cache blocks",  # vLLM
    "larger than the available kv cache memory",  # vLLM
    "less than desired gpu memory utilization",  # vLLM on GPUs
)
KILLED = ("connection error code 2. End of file", "exit type: SYSTEM_ERROR", ": -9}", "SIGKILL")
"""How Ray and vLLM tell that a process ended without a word, as one does that the kernel kills."""
_ACTOR = re.compile(r"\b(rollout|teacher|env|learner)-(?:rank)?\d+(?:-r\d+)?\b")
_RAYS_CHOICE = re.compile(r"Selected to kill: .*?task name=([\w-]+).*?actual memory used=([\d.]+)GB")
_NODE = re.compile(r"Memory on the node \(.*?\) was ([^()]+?) \(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """role: "" where the error does not tell whose memory it was. actor: its name, or the role.

    probable: the process ended without a word, and the kernel has killed processes for memory meanwhile. Programs in
    sandboxes that passed their own limit count there as well.
    """

    role: str
    actor: str
    reason: str
    probable: bool = False


def lack_of_memory(error: BaseException, kernel_kills: int = 0) -> Death | None:
    """Return the death by lack of memory in an error or in what it came from; None if memory was not the cause.

    `kernel_kills`: processes of this machine that the kernel has killed for memory since the run began. Without any, a
    process that ended without a word counts as another fault.
    """
    causes = list(_chain(error))
    for cause in sorted(causes, key=lambda cause: _largest_choice(str(cause)) is None):  # they name an actor
        if (reason := _reason(cause)) is not None:
            return _death(cause, error, reason)
    for cause in causes if kernel_kills > 0 else ():
        if any(words in str(cause) for words in KILLED):
            reason = f"it was killed, as {kernel_kills} processes were by the kernel for lack of memory since the start"
            return replace(_death(cause, error, reason), probable=True)
    return None


def line_of(death: Death, memory: RunMemory | None) -> str:
    """Return role, reason, plan and keys to change in one line."""
    plan = None if memory is None else next((r for r in memory.plan.roles if r.role == death.role), None)
    planned = f"; the plan of one was {words(plan)}" if plan is not None else ""
    keys = KEYS.get(death.role) or "`sdpo doctor RUN.yaml` names them"
    had = "had probably" if death.probable else "had"
    return f"{death.actor or 'an actor'} {had} not enough memory: {death.reason}{planned}; keys that lower it: {keys}"


@contextmanager
def deaths_explained(memory: RunMemory | None) -> Iterator[None]:
    """Raise `OutOfMemory` instead of an error of the block that lack of memory explains."""
    kills_before = kernel_kills()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (death := lack_of_memory(error, kernel_kills() - kills_before)) is None:
            raise
        raise OutOfMemory(line_of(death, memory)) from error


def kernel_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes of this machine the kernel has killed for memory since it started."""
    counts = dict(line.split() for line in vmstat.read_text().splitlines())
    return int(counts.get("oom_kill", 0))


def _chain(error: BaseException, seen: set[int] | None = None) -> Iterator[BaseException]:
    """Yield an error after the one that it carries from another process, then what it came from, and a group's members.

    An error may have come from a group that it is a member of: each is yielded once.
    """
    seen = set() if seen is None else seen
    if id(error) in seen:
        return
    seen.add(id(error))
    if isinstance(remote := getattr(error, "cause", None), BaseException):
        yield from _chain(remote, seen)
    yield error
    below = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for other in (*below, *filter(None, (error.__cause__,))):
        yield from _chain(other, seen)


def _death(cause: BaseException, error: BaseException, reason: str) -> Death:
    actor = _actor(cause) or next(filter(None, map(_actor, _chain(error))), "")
    return Death(role=actor.partition("-")[0], actor=actor, reason=reason.removeprefix(f"{actor}: "))


def _reason(error: BaseException) -> str | None:
    text = str(error)
    if RAY_MONITOR in text:
        node, chosen = _NODE.search(text), _largest_choice(text)
        used = f", itself {chosen[1]:g}GB" if chosen else ""
        return f"Ray ended it because its node was full ({node[1] if node else 'see its log'}{used})"
    if isinstance(error, MemoryError):
        return f"MemoryError {text}".strip()
    for line in reversed(text.splitlines()):  # what was raised stands below the code that raised it
        if any(words in line.lower() for words in ALLOCATIONS):
            return " ".join(line.split())[:LONGEST_REASON_CHARS]
    return None


def _largest_choice(text: str) -> tuple[str, float] | None:
    """Return name and GB of the largest process that Ray's memory monitor ended, by its message; None if it is none."""
    chosen = [(name, float(used)) for name, used in _RAYS_CHOICE.findall(text)]
    return max(chosen, key=lambda one: one[1], default=None)


def _actor(error: BaseException) -> str:
    """Return the name of the actor that an error is about, its role where it has no name, or ""."""
    text = str(error)
    if (chosen := _largest_choice(text)) is not None:
        return chosen[0]
    if (named := _ACTOR.search(text)) is not None:
        return named[0]
    return "learner" if isinstance(error, LearnerDied) else ""
