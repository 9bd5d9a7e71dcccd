"""`sdpo doctor [RUN.yaml] [key=value …] [--address HOST:PORT]`."""

import sys
from argparse import ArgumentParser, Namespace

NAME = "doctor"
HELP = "say what of this machine (or of a cluster) a run would stumble over, with the mend for each thing"


def add_arguments(parser: ArgumentParser) -> None:
    """RUN.yaml or none, overrides, --address, --json, --full."""
    parser.add_argument("run_file", metavar="RUN.yaml", nargs="?", help="also check this run, and plan its memory")
    parser.add_argument("override", nargs="*", metavar="key=value", help="for example batch.tasks=8")
    parser.add_argument("--address", metavar="HOST:PORT", help="look at the Ray cluster there, not at this machine")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--full", action="store_true", help="also start Ray and run a task on it (10 s)")


def run(arguments: Namespace) -> int:
    """0 if nothing that is needed is broken, else 1."""
    from orchestrator.doctor.examine import examine
    from orchestrator.doctor.finding import Level, worst
    from orchestrator.doctor.show import as_json, print_findings
    from sdpo.config.load import load_run_config

    config = None if arguments.run_file is None else load_run_config(arguments.run_file, arguments.override)
    findings = examine(config, full=arguments.full, address=arguments.address)
    if arguments.json:
        print(as_json(findings))
    else:
        print_findings(findings, sys.stdout)
    return int(worst(findings) is Level.BROKEN)
