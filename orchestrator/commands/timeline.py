"""`sdpo timeline RUN_DIR [--out FILE.json] [--steps FIRST:LAST]`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sdpo.errors import ConfigError
from sdpo.storage import is_uri

NAME = "timeline"
HELP = "write what every actor of a run did when, for ui.perfetto.dev or chrome://tracing"


def add_arguments(parser: ArgumentParser) -> None:
    """The run directory, where to write, which steps."""
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a path or a URI")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="default: RUN_DIR/timeline.json; of a URI timeline.json here"
    )
    parser.add_argument("--steps", metavar="FIRST:LAST", default=":", help="both included; either may be missing")


def run(arguments: Namespace) -> int:
    """Write the timeline and print its path."""
    from orchestrator.remote_dir import reading_copy
    from orchestrator.timeline import write_timeline
    from orchestrator.trace_log import read_trace, trace_files

    first, last = _steps(arguments.steps)
    folder = reading_copy(arguments.run_dir) / "trace"
    if not trace_files(folder):
        raise ConfigError(f"RUN_DIR={arguments.run_dir}: no trace/step-*.jsonl; allowed: a run with record.trace=true")
    here = Path() if is_uri(arguments.run_dir) else Path(arguments.run_dir)
    file = arguments.out or here / "timeline.json"
    num_calls = write_timeline(read_trace(folder, first, last), file)
    print(f"timeline: {file} ({num_calls} calls, {file.stat().st_size / 1e6:.1f} MB); open it in ui.perfetto.dev")
    return 0


def _steps(text: str) -> tuple[int, int | None]:
    first, colon, last = text.partition(":")
    if not colon or not all(part.isdigit() or not part for part in (first, last)):
        raise ConfigError(f"--steps={text}: allowed: FIRST:LAST, for example 3:5, 3: or :5")
    return int(first or 0), int(last) if last else None
