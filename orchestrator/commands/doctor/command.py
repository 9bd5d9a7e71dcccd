"""`sdpo doctor [RUN.yaml] [key=value …] [--address HOST:PORT]`."""

import sys
from argparse import ArgumentParser, Namespace

from orchestrator.commands import location

NAME = "doctor"
HELP = "check this machine (or a cluster) for problems and print a fix for each"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare RUN.yaml (optional), overrides, --address, --json and --full."""
    parser.add_argument(
        "run_file", metavar="RUN.yaml", type=location, nargs="?", help="also check this run, and plan its memory"
    )
    parser.add_argument("override", nargs="*", metavar="key=value", help="for example batch.tasks=8")
    parser.add_argument("--address", metavar="HOST:PORT", help="check the Ray cluster there instead of this machine")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--full", action="store_true", help="also start Ray and run a task on it (10 s)")


def run(arguments: Namespace) -> int:
    """Print the findings. Returns 1 if something that is needed is broken, else 0."""
    from sdpo.config.load import load_run_config

    config = None if arguments.run_file is None else load_run_config(arguments.run_file, arguments.override)

    from orchestrator.commands.doctor.examine import examine
    from orchestrator.commands.doctor.finding import Level, worst
    from orchestrator.commands.doctor.show import as_json, print_findings

    findings = examine(config, full=arguments.full, address=arguments.address)
    if arguments.json:
        print(as_json(findings))
    else:
        print_findings(findings, sys.stdout)
    return int(worst(findings) is Level.BROKEN)
