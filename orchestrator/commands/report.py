"""`sdpo report RUN_DIR [RUN_DIR …] [--out FILE.html] [--plots FOLDER]`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

NAME = "report"
HELP = "write one page, without network, that shows what happened in a run or compares several"


def add_arguments(parser: ArgumentParser) -> None:
    """Run directories and where to write."""
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", help="a path or a URI")
    default = "default: RUN_DIR/report.html; of several runs report-compare.html beside the first; of a URI here"
    parser.add_argument("--out", type=Path, metavar="FILE.html", help=f"the page; {default}")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write every chart there as PNG and SVG, too")


def run(arguments: Namespace) -> int:
    """Write the page and print its path."""
    from orchestrator.report.write import write_report

    file, num_charts = write_report(arguments.run_dirs, arguments.out, arguments.plots)
    if arguments.plots is not None:
        print(f"plots: {arguments.plots} ({num_charts} charts, PNG and SVG)")
    print(f"report: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0
