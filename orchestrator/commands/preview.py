"""`sdpo preview RUN.yaml [--task ID] [--answer FILE …] [--demo FILE …] [key=value …]`."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from orchestrator.commands import add_run_file

NAME = "preview"
HELP = "show what a run makes of a task and an answer of yours: prompt, verdict, feedback, hindsight prompt; no model"


def add_arguments(parser: ArgumentParser) -> None:
    """RUN.yaml, the task, answers, overrides."""
    parser.add_argument("--task", metavar="ID", help="of the training or held-out tasks (default: the first)")
    answer = "file with the model's answer, - for stdin; once a turn (default: only the prompt is shown)"
    parser.add_argument("--answer", action="append", default=[], metavar="FILE", help=answer)
    demo = "another attempt of the same group, which succeeded: the demonstration; once a turn"
    parser.add_argument("--demo", action="append", default=[], metavar="FILE", help=demo)
    parser.add_argument("--plain", action="store_true", help="no tokenizer: messages by role, lengths in characters")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_run_file(parser)


def run(arguments: Namespace) -> int:
    """0 also for an answer that fails; 1 where the sandbox broke."""
    from orchestrator.preview import preview
    from orchestrator.preview_show import as_json, show
    from sdpo.config.load import load_run_config

    answers, demo = _read([arguments.answer, arguments.demo])
    config = load_run_config(arguments.run_file, arguments.override)
    found = preview(config, arguments.task, answers, demo, plain=arguments.plain)
    if arguments.json:
        print(as_json(found))
    else:
        show(found, config)
    played = [attempt for attempt in (found.attempt, found.demo) if attempt is not None]
    return int(any(attempt.verdict.infrastructure_error is not None for attempt in played))


def _read(options: Sequence[Sequence[str]]) -> list[list[str]]:
    """The files' texts. Raises `ConfigError` for one that cannot be read, and for a second `-`."""
    from sdpo.errors import ConfigError

    if sum(name == "-" for names in options for name in names) > 1:
        raise ConfigError("--answer -: stdin can be read once; allowed: files for all other turns")
    return [[_text(name) for name in names] for names in options]


def _text(name: str) -> str:
    from pathlib import Path

    from sdpo.errors import ConfigError

    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return content.decode("utf-8").removesuffix("\n")  # the one that editors add
    except OSError as error:
        raise ConfigError(f"--answer {name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--answer {name}: not UTF-8 text") from None
