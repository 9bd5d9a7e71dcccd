"""`sdpo preview RUN.yaml [--task ID] [--answer FILE …] [--demo FILE …] [--answers FILE.jsonl] [key=value …]`."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from orchestrator.commands import add_run_file, location

NAME = "preview"
HELP = "play an answer of yours without a model: show prompt, verdict, feedback and hindsight prompt"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN.yaml, the task, answers and overrides."""
    parser.add_argument("--task", metavar="ID", help="training or held-out task (default: the first one)")
    answer = "file with the model's answer, - for stdin; once a turn (default: only the prompt is shown)"
    parser.add_argument("--answer", action="append", default=[], metavar="FILE", type=location, help=answer)
    demo = "another, successful attempt of the same group, which is the demonstration; once a turn"
    parser.add_argument("--demo", action="append", default=[], metavar="FILE", type=location, help=demo)
    many = "file of records {id, answer}: judge all of them; an answer in several turns is a list"
    parser.add_argument("--answers", metavar="FILE.jsonl", type=location, help=many)
    parser.add_argument("--plain", action="store_true", help="no tokenizer: messages by role, lengths in characters")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_run_file(parser)


def run(arguments: Namespace) -> int:
    """Show the preview; return 1 where the sandbox broke, else 0, also for an answer that fails."""
    from sdpo.config.load import load_run_config

    if arguments.answers is not None:
        return _judge(arguments)
    answers, demo = _read([arguments.answer, arguments.demo])
    config = load_run_config(arguments.run_file, arguments.override)

    from orchestrator.commands.preview.play import preview
    from orchestrator.commands.preview.show import as_json, show

    shown = preview(config, arguments.task, answers, demo, plain=arguments.plain)
    if arguments.json:
        print(as_json(shown))
    else:
        show(shown, config)
    played = [attempt for attempt in (shown.attempt, shown.demo) if attempt is not None]
    return int(any(attempt.record.is_lost for attempt in played))


def _judge(arguments: Namespace) -> int:
    """Print the verdict on every record of `--answers`; return 1 where the sandbox broke on one of them, else 0."""
    from orchestrator.commands.preview.many import judge_file
    from sdpo.config.load import load_run_config
    from sdpo.errors import ConfigError

    for option, given in (("--task", arguments.task), ("--answer", arguments.answer), ("--demo", arguments.demo)):
        if given:
            raise ConfigError(f"{option}: allowed: without --answers, whose records name task and answer")
    config = load_run_config(arguments.run_file, arguments.override)
    num_lost = judge_file(config, arguments.answers, plain=arguments.plain, as_json=arguments.json)
    return int(num_lost > 0)


def _read(options: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the texts of the files. Raises `ConfigError` for a file that cannot be read, and for a second `-`."""
    from sdpo.errors import ConfigError

    if sum(name == "-" for names in options for name in names) > 1:
        raise ConfigError("--answer -: stdin can be read once; allowed: files for all other turns")
    return [[_text(name) for name in names] for names in options]


def _text(name: str) -> str:
    from pathlib import Path

    from sdpo.encoding import decode
    from sdpo.errors import ConfigError

    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return decode(content).removesuffix("\n")  # the one that editors add
    except OSError as error:
        raise ConfigError(f"--answer {name}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--answer {name}: {error}") from None
