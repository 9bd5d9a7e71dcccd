"""Recorded attempts on a terminal: one line each, or the whole story of one."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text

from orchestrator.inspect_credit import coloured, mean_credit, strongest, token_table
from orchestrator.inspect_text import harmless, one_line, visible
from orchestrator.report.credit_choice import MOST_CREDIT_NATS
from orchestrator.report.credit_pack import why_no_credit

Sample = dict[str, Any]

_WIDTH_OF_A_PIPE = 160
_LONGEST_HEAD = 1000
_HEADS = ("step", "task", "sample", "verdict", "reward", "tokens", "mean credit", "response")


def show_list(console: Console, samples: Sequence[Sample]) -> None:
    """One line an attempt, cut to the terminal's width."""
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


def show_story(console: Console, sample: Sample, *, all_tokens: bool) -> None:
    """Question, response by credit, verdict, feedback, demonstration and hindsight prompt."""
    _head(console, f"step {sample['step']}, task {visible(sample['task'])}, attempt {sample['sample']}")
    for message in sample["messages"]:
        _part(console, f"question ({message['role']})", message["content"])
    _head(console, "response")
    _print(console, coloured(sample))
    _show_credit(console, sample, all_tokens)
    _head(console, "verdict")
    verdict = sample["verdict"]
    details = ", ".join(f"{key}={value}" for key, value in verdict["details"].items())
    _print(
        console,
        Text(
            f"{'success' if verdict['success'] else 'failure'}: {harmless(verdict['kind'])}, reward "
            f"{verdict['reward']}, advantage in the group {sample['advantage']:+.3f}"
        ),
    )
    _print(
        console,
        Text(
            harmless(
                f"ended by {sample['finish_reason']}, sampled by weights "
                f"{', '.join(sample['versions'])}{'; ' + details if details else ''}"
            )
        ),
    )
    _part(console, "feedback", sample["feedback"] or "(the environment said nothing)")
    if sample["hindsight"] is not None:
        _show_hindsight(console, sample["hindsight"])


def _show_credit(console: Console, sample: Sample, all_tokens: bool) -> None:
    _head(console, "credit of tokens")
    mean = mean_credit(sample)
    if mean is None:
        _print(console, Text(why_no_credit(sample)))
    else:
        legend = f"log q - log p: mean {mean:+.3f} nats; teacher of weights {sample['teacher']['version']}"
        if _has_colours(console):
            legend += f"; full red at -{MOST_CREDIT_NATS:g} and below, full blue at +{MOST_CREDIT_NATS:g} and above"
        _print(console, Text(legend))
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
    _print(console, Text(harmless(text)))


def _head(console: Console, title: str) -> None:
    console.print()
    rule: RenderableType = (
        Rule(Text(harmless(title), "bold"), align="left") if _has_colours(console) else f"== {title} =="
    )
    console.print(rule, markup=False, highlight=False, soft_wrap=not _has_colours(console))


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True, highlight=False)
