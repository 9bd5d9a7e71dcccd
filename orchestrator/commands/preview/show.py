"""A preview on a terminal in panels, elsewhere as plain text, and as JSON."""

import dataclasses
import json
import sys
from collections.abc import Iterator

from orchestrator.commands.preview.play import PlayedAnswers, Preview
from sdpo.config import RunConfig
from sdpo.types import HindsightPrompt, Verdict

Part = tuple[str, str]
"""Heading and text."""
CUTS = {"demonstration": "num_demo_chars_cut", "feedback": "num_feedback_chars_cut", "attempt": "num_attempt_chars_cut"}
"""The fields of a hindsight prompt that count what was cut, by what they count."""
HINDSIGHT_KEYS = ("demo_from", "used_feedback", *CUTS.values())


def show(preview: Preview, config: RunConfig) -> None:
    """Print the preview part by part."""
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
    """Return one JSON object: task, prompt, tokens_left, packages, attempt, demo, hindsight, notes."""
    data = {
        "task": preview.task.id,
        "task_set": preview.task_set,
        "environment": preview.task.environment,
        "unit": preview.unit,
        "prompt": dataclasses.asdict(preview.prompt),
        "tokens_left": preview.tokens_left,
        "packages": preview.packages,
        "attempt": _played(preview.attempt),
        "demo": _played(preview.demo),
        "hindsight": None,
        "notes": preview.notes,
    }
    if preview.hindsight is not None:
        text = {"text": preview.hindsight_text, "length": len(preview.hindsight.token_ids)}
        data["hindsight"] = text | {key: getattr(preview.hindsight, key) for key in HINDSIGHT_KEYS}
    return json.dumps(data, indent=1, ensure_ascii=False)


def _played(played: PlayedAnswers | None) -> dict[str, object] | None:
    if played is None:
        return None
    verdict = dataclasses.asdict(played.record.verdict) | {"details": dict(played.record.verdict.details)}
    turns = [dataclasses.asdict(turn) for turn in played.turns]
    return {"turns": turns, "transcript": played.record.header.text, "verdict": verdict, "notes": played.notes}


def _parts(preview: Preview, config: RunConfig) -> Iterator[Part]:
    unit, window = preview.unit, config.model.max_model_len_tokens
    where = f"task {preview.task.id} ({preview.task_set}), environment {preview.task.environment}"
    if preview.packages:
        where += f"\nprograms may import, beside the standard library: {', '.join(preview.packages)}"
    size = f"{preview.prompt.length} {unit}"
    if preview.tokens_left is not None:
        response = config.rollout.sampling.max_response_tokens
        size += f" of a window of {window}; {response} are the response's, {preview.tokens_left} are left"
    yield f"prompt: {size}", f"{where}\n\n{preview.prompt.text}"
    for name, played in (("answer", preview.attempt), ("demonstration", preview.demo)):
        if played is not None:
            yield from _attempt(name, played, unit)
    if preview.hindsight is not None:
        size = _hindsight_size(preview, preview.hindsight, config)
        yield f"hindsight prompt: {size}", preview.hindsight_text
    if preview.notes:
        yield "notes", "\n".join(f"- {note}" for note in preview.notes)


def _attempt(name: str, played: PlayedAnswers, unit: str) -> Iterator[Part]:
    for number, turn in enumerate(played.turns, start=1):
        nth = f", turn {number}" if len(played.turns) > 1 or turn.observation is not None else ""
        yield f"{name}{nth}: {turn.answer.length} {unit}", turn.answer.text
        for message in turn.observation or ():
            yield f"observation ({message.role}): {len(message.content)} characters", message.content
    verdict = played.record.verdict
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


def _hindsight_size(preview: Preview, hindsight: HindsightPrompt, config: RunConfig) -> str:
    size = f"{len(hindsight.token_ids)} {preview.unit}"
    if preview.tokens_left is not None:
        size += f" of at most {config.hindsight.max_prompt_tokens} (hindsight.max_prompt_tokens)"
    cuts = [f"{number} characters of the {name}" for name, key in CUTS.items() if (number := getattr(hindsight, key))]
    return f"{size}; cut: {', '.join(cuts) or 'nothing'}"
