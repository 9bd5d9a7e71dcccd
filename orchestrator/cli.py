"""`sdpo`: the command line. Bad input is one line and exit code 2; a run that an alarm stopped is 3; an interrupted one
is 130; a broken one is 1."""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from orchestrator.commands import Command, config
from orchestrator.commands.doctor import command as doctor
from orchestrator.commands.eval import command as eval
from orchestrator.commands.export import command as export
from orchestrator.commands.generate import command as generate
from orchestrator.commands.inspect import command as inspect
from orchestrator.commands.logs import command as logs
from orchestrator.commands.preview import command as preview
from orchestrator.commands.report import command as report
from orchestrator.commands.status import command as status
from orchestrator.commands.stop import command as stop
from orchestrator.commands.tasks import command as tasks
from orchestrator.commands.timeline import command as timeline
from orchestrator.commands.train import command as train
from sdpo import __version__
from sdpo.errors import ConfigError, SdpoError

COMMANDS: tuple[Command, ...] = (
    train,
    config,
    tasks,
    generate,
    eval,
    export,
    preview,
    report,
    timeline,
    inspect,
    doctor,
    status,
    logs,
    stop,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        arguments = _parse(argv)
        return int(arguments.run(arguments))
    except SdpoError as error:
        from orchestrator.failures import one_line
        from sdpo.secrets import hide_secrets

        print(f"sdpo: {hide_secrets(one_line(error))}", file=sys.stderr)
        return error.exit_code


class _Parser(argparse.ArgumentParser):
    """Refuses arguments in one line, as everything else is refused."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; `{self.prog} --help` shows what is allowed")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Overrides (key=value) may stand before, between and behind the options of a command that takes them."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    takes_overrides = "override" in arguments
    unknown = [text for text in rest if not takes_overrides or text.startswith("-") or "=" not in text]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        arguments.override = [*arguments.override, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sdpo", description="Self-Distillation Policy Optimization on Ray actors.")
    parser.add_argument("--version", action="version", version=f"sdpo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        command = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
