"""A preview on a terminal in panels, elsewhere as plain text, and as JSON."""

import dataclasses
import json
import sys
from collections.abc import Iterator

from orchestrator.preview import Played, Preview
from sdpo.config import RunConfig
from sdpo.types import Verdict

Part = tuple[str, str]
"""Heading and text."""


def show(preview: Preview, config: RunConfig) -> None:
    """Print it part by part."""
    parts = list(_parts(preview, config))
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.panel import Panel
        from rich.text import Text

        console = Console()
        for heading, text in parts:
            console.print(Panel(Text(text), title=Text(heading), title_align="left"))
        return
    for heading, text in parts:
        print(f"== {heading} ==\n{text}\n")


def as_json(preview: Preview) -> str:
    """One object: task, prompt, room, attempt, demo, hindsight, notes."""
    data = {
        "task": preview.task.id,
        "task_set": preview.task_set,
        "environment": preview.task.environment,
        "unit": preview.unit,
        "prompt": dataclasses.asdict(preview.prompt),
        "room": preview.room,
        "attempt": _played(preview.attempt),
        "demo": _played(preview.demo),
        "hindsight": None,
        "notes": list(preview.notes),
    }
    if preview.hindsight is not None and preview.cuts is not None:
        cuts = dataclasses.asdict(preview.cuts)
        shown = ("demo_from", "used_feedback", *(key for key in cuts if key.endswith("_chars_cut")))
        data["hindsight"] = dataclasses.asdict(preview.hindsight) | {key: cuts[key] for key in shown}
    return json.dumps(data, indent=1, ensure_ascii=False)


def _played(played: Played | None) -> dict[str, object] | None:
    if played is None:
        return None
    data = dataclasses.asdict(played)
    data["verdict"]["details"] = dict(played.verdict.details)
    return data


def _parts(preview: Preview, config: RunConfig) -> Iterator[Part]:
    unit, window = preview.unit, config.model.max_model_len_tokens
    where = f"task {preview.task.id} ({preview.task_set}), environment {preview.task.environment}"
    size = f"{preview.prompt.length} {unit}"
    if preview.room is not None:
        response = config.rollout.sampling.max_response_tokens
        size += f" of a window of {window}; {response} are the response's, {preview.room} are left"
    yield f"prompt: {size}", f"{where}\n\n{preview.prompt.text}"
    for name, played in (("answer", preview.attempt), ("demonstration", preview.demo)):
        if played is not None:
            yield from _attempt(name, played, unit)
    if preview.hindsight is not None:
        yield f"hindsight prompt: {_hindsight_size(preview, config)}", preview.hindsight.text
    if preview.notes:
        yield "notes", "\n".join(f"- {note}" for note in preview.notes)


def _attempt(name: str, played: Played, unit: str) -> Iterator[Part]:
    for number, turn in enumerate(played.turns, start=1):
        nth = f", turn {number}" if len(played.turns) > 1 or turn.observation is not None else ""
        yield f"{name}{nth}: {turn.answer.length} {unit}", turn.answer.text
        for message in turn.observation or ():
            yield f"observation ({message.role}): {len(message.content)} characters", message.content
    verdict = played.verdict
    yield f"verdict on the {name}", _verdict(verdict)
    if verdict.feedback:
        yield f"feedback: {len(verdict.feedback)} characters", verdict.feedback
    if played.notes:
        yield f"notes on the {name}", "\n".join(f"- {note}" for note in played.notes)


def _verdict(verdict: Verdict) -> str:
    if verdict.infrastructure_error is not None:
        return f"none, infrastructure broke: {verdict.infrastructure_error}"
    lines = [f"reward {verdict.reward:g}", f"success {str(verdict.success).lower()}", f"kind {verdict.kind}"]
    lines += [f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in verdict.details.items()]
    return "\n".join(lines)


def _hindsight_size(preview: Preview, config: RunConfig) -> str:
    assert preview.hindsight is not None
    assert preview.cuts is not None
    size = f"{preview.hindsight.length} {preview.unit}"
    if preview.room is not None:
        size += f" of at most {config.hindsight.max_prompt_tokens} (hindsight.max_prompt_tokens)"
    cuts = preview.cuts
    numbers = {"demonstration": cuts.num_demo_chars_cut, "feedback": cuts.num_feedback_chars_cut}
    numbers["attempt"] = cuts.num_attempt_chars_cut
    cut = [f"{number} characters of the {name}" for name, number in numbers.items() if number]
    return f"{size}; cut: {', '.join(cut) or 'nothing'}"
