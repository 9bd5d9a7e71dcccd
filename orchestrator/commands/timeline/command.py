"""`sdpo timeline RUN_DIR [--out FILE.json] [--steps FIRST:LAST]`."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from orchestrator.commands import location, number, path
from sdpo.bounds import Steps
from sdpo.errors import ConfigError
from sdpo.show import show

NAME = "timeline"
HELP = "write a timeline of the actors' calls for ui.perfetto.dev or chrome://tracing"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run directory, the file to write and the steps."""
    parser.add_argument("run_dir", metavar="RUN_DIR", type=location, help="a path or a URI")
    parser.add_argument(
        "--out",
        type=path,
        metavar="FILE.json",
        help="default: RUN_DIR/timeline.json; of a URI, timeline.json in this folder",
    )
    parser.add_argument(
        "--steps",
        type=_steps,
        metavar="FIRST:LAST",
        default=":",
        help="both included; either may be left out (default: all steps)",
    )


def run(arguments: Namespace) -> int:
    """Write the timeline and print its path."""
    from orchestrator.commands.timeline.timeline import write_timeline
    from orchestrator.run_dir.remote_dir import reading_copy
    from orchestrator.telemetry.trace_log import read_trace
    from sdpo.run_layout import TIMELINE, TRACE, step_files
    from sdpo.storage_cache import output_folder

    first, last = arguments.steps
    folder = reading_copy(arguments.run_dir) / TRACE
    if not step_files(folder):
        raise ConfigError(f"RUN_DIR={arguments.run_dir}: no {TRACE}/step-*; allowed: a run with record.trace=true")
    file = arguments.out or output_folder(arguments.run_dir) / TIMELINE
    num_calls = write_timeline(read_trace(folder, first, last), file)
    print(f"timeline: {file} ({num_calls} calls, {file.stat().st_size / 1e6:.1f} MB); open it in ui.perfetto.dev")
    return 0


def _steps(text: str) -> tuple[int, int | None]:
    """Type of --steps."""
    first, colon, last = text.partition(":")
    if not colon:
        raise ArgumentTypeError(f"{show(text)}; allowed: FIRST:LAST, for example 3:5, 3: or :5")
    step = number(Steps)
    return step(first or "0"), step(last) if last else None
