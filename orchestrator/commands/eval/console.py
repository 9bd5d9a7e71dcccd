"""The result of an evaluation as a table."""

from collections.abc import Iterator
from math import isclose
from typing import Any

MAX_NAME_CHARS = 24


def table(result: dict[str, Any]) -> str:
    """Return the result as lines of text without colours."""
    return "\n".join(_lines(result))


def _lines(result: dict[str, Any]) -> Iterator[str]:
    samples, tasks, lost = result["samples"], result["tasks"], result["infrastructure"]
    how = result["sampling"]
    yield f"{result['model']['given']}  (weights {result['model']['sha256']['weights'][:12]})"
    yield (
        f"{tasks['asked']} tasks of {result['tasks_file']['path']}, {how['samples']} "
        f"sample{'s' * (how['samples'] > 1)} each: temperature {how['temperature']:g}, top_p {how['top_p']:g}, "
        f"at most {how['max_response_tokens']} tokens, seed {how['seed']}"
    )
    if lost["lost"]:
        reason = next(iter(lost["reasons"]))
        yield f"lost to infrastructure: {lost['lost']} of {samples['asked']} samples ({lost['share']:.1%}); {reason}"
    yield ""
    yield f"{'':12}  {'mean':>7}  {'95 % interval':>16}  {'tasks':>6}"
    yield _row("pass@1", result["pass@1"])
    for k, row in result["pass@k"].items():
        if k != "1":
            yield _row(f"pass@{k}", row)
    for k, row in result["best@k"].items():
        if k != "1" and _differs(row["mean"], result["pass@k"][k]["mean"]):
            yield _row(f"best@{k}", row)
    for k, row in result["avg@k"].items():
        yield _row(f"avg@{k}", row["success"])
        if _differs(row["reward"]["mean"], row["success"]["mean"]):
            yield _row(f"reward@{k}", row["reward"])
    yield ""
    yield f"{'tokens':12}  {'mean':>7}  {'median':>7}  {'p90':>7}  {'cut':>6}"
    for name, lengths in result["response_tokens"].items():
        if lengths is not None:
            yield (
                f"{name:12}  {lengths['mean']:>7.1f}  {lengths['median']:>7.1f}  {lengths['p90']:>7.1f}  "
                f"{lengths['truncated_fraction']:>6.1%}"
            )
    yield ""
    yield f"{'outcome':{MAX_NAME_CHARS}}  {'count':>7}  {'share':>6}  example"
    for kind in result["kinds"]:
        yield f"{kind['kind']:{MAX_NAME_CHARS}}  {kind['count']:>7}  {kind['share']:>6.1%}  {kind['example']}"
    yield ""
    speed, overlap = result["speed"], result["overlap"]
    yield (
        f"{speed['tokens_per_s']:.0f} tokens/s, {speed['samples_per_s']:.1f} samples/s; "
        f"start {speed['start_s']:.0f} s, "
        f"evaluation {speed['evaluate_s']:.0f} s, in all {speed['total_s']:.0f} s"
    )
    if not overlap["checked"]:
        yield f"overlap with training tasks: not checked, {overlap['reason']}"
    elif overlap["num_overlapping"]:
        yield f"overlap with training tasks: {overlap['num_overlapping']} of {tasks['asked']}"
    else:
        yield f"overlap with training tasks: none of {overlap['num_train']} in {overlap['train']}"
    if overlap.get("as_trained") is False:
        yield f"{overlap['train']} has changed since the run was trained on it"


def _differs(reward: float | None, share: float | None) -> bool:
    return reward is not None and share is not None and not isclose(reward, share, abs_tol=1e-9)


def _row(name: str, row: dict[str, Any]) -> str:
    mean = "" if row["mean"] is None else f"{row['mean']:.3f}"
    interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    return f"{name:12}  {mean:>7}  {interval:>16}  {row['tasks']:>6}"
