"""Print recorded attempts on a terminal: one line each, or everything about one."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from orchestrator.commands.inspect.credit import coloured, mean_credit, strongest, token_table
from orchestrator.commands.inspect.text import harmless, one_line, visible
from orchestrator.run_dir.sample_form import MOST_CREDIT_NATS, question_parts, why_no_credit

Sample = dict[str, Any]

_WIDTH_OF_A_PIPE = 160
_LONGEST_HEAD = 1000
_HEADS = ("step", "task", "sample", "verdict", "reward", "tokens", "mean credit", "response")


def show_list(console: Console, samples: Sequence[Sample]) -> None:
    """Print one line for each attempt, cut to the width of the terminal."""
    rows = [_HEADS, *(_row(sample) for sample in samples)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADS) - 1)]
    most = console.width if console.is_terminal else _WIDTH_OF_A_PIPE
    for i, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        line = Text("  ".join([*cells, row[-1]]), no_wrap=True, overflow="ellipsis")
        line.truncate(most, overflow="ellipsis")
        if i == 0:
            line.stylize("bold")
        elif samples[i - 1]["verdict"]["success"]:
            line.stylize("green", 0, sum(widths[:4]) + 6)
        _print(console, line)


def show_attempt(console: Console, sample: Sample, *, all_tokens: bool) -> None:
    """Print question, response by credit, verdict, feedback, demonstration and hindsight prompt of an attempt."""
    _head(console, f"step {sample['step']}, task {visible(sample['task'])}, attempt {sample['sample']}")
    for role, text in question_parts(sample):
        _part(console, f"question ({role})", text)
    _head(console, "response")
    _print(console, coloured(sample))
    _show_credit(console, sample, all_tokens)
    _head(console, "verdict")
    verdict = sample["verdict"]
    details = ", ".join(f"{key}={value}" for key, value in verdict["details"].items())
    outcome, advantage = "success" if verdict["success"] else "failure", f"{sample['advantage']:+.3f}"
    _print(console, f"{outcome}: {verdict['kind']}, reward {verdict['reward']}, advantage in the group {advantage}")
    ended = f"ended by {sample['finish_reason']}, sampled by weights {', '.join(sample['versions'])}"
    _print(console, f"{ended}; {details}" if details else ended)
    _part(console, "feedback", sample["feedback"] or "(the environment gave no feedback)")
    if sample["hindsight"] is not None:
        _show_hindsight(console, sample["hindsight"])


def _show_credit(console: Console, sample: Sample, all_tokens: bool) -> None:
    _head(console, "credit of tokens")
    mean = mean_credit(sample)
    if mean is None:
        _print(console, why_no_credit(sample))
    else:
        legend = f"log q - log p: mean {mean:+.3f} nats; teacher of weights {sample['teacher']['version']}"
        if _has_colours(console):
            legend += f"; full red at -{MOST_CREDIT_NATS:g} and below, full blue at +{MOST_CREDIT_NATS:g} and above"
        _print(console, legend)
    positions = range(len(sample["tokens"])) if all_tokens else strongest(sample)
    if positions:
        console.print(token_table(sample, positions))


def _show_hindsight(console: Console, hindsight: dict[str, Any]) -> None:
    demo = hindsight["demo"]
    if demo is None:
        _part(console, "demonstration", "(none: no other attempt of the group succeeded)")
    else:
        cut = hindsight["demo_chars_cut"]
        left_out = f", {cut} characters left out in the prompt" if cut else ""
        _part(console, f"demonstration: attempt {demo['sample']} at the same task{left_out}", demo["text"])
    _part(console, "hindsight prompt: what the teacher read instead of the question", hindsight["prompt"])


def _row(sample: Sample) -> tuple[str, ...]:
    verdict, mean = sample["verdict"], mean_credit(sample)
    reward = "" if verdict["reward"] is None else f"{verdict['reward']:g}"
    numbers = (reward, str(len(sample["tokens"])), "" if mean is None else f"{mean:+.3f}")
    names = (str(sample["step"]), visible(sample["task"]), str(sample["sample"]), visible(verdict["kind"]))
    return (*names, *numbers, one_line(sample["response"][:_LONGEST_HEAD]))


def _has_colours(console: Console) -> bool:
    return console.is_terminal and not console.no_color


def _part(console: Console, title: str, text: str) -> None:
    _head(console, title)
    _print(console, text)


def _head(console: Console, title: str) -> None:
    console.print()
    if _has_colours(console):
        console.print(Rule(Text(harmless(title), "bold"), align="left"))
    else:
        _print(console, f"== {title} ==")


def _print(console: Console, text: str | Text) -> None:
    """Print a text as it is; control characters of a string are spelled out."""
    console.print(text if isinstance(text, Text) else Text(harmless(text)), soft_wrap=True, highlight=False)
