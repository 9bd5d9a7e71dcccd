"""`sdpo report RUN_DIR [RUN_DIR …] [--out FILE.html] [--plots FOLDER]`."""

from argparse import ArgumentParser, Namespace

from orchestrator.commands import location, path

NAME = "report"
HELP = "write one HTML page that shows what happened in a run or compares several runs; it needs no network"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run directories and the files to write."""
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", type=location, help="a path or a URI")
    default = "default: RUN_DIR/report.html; of several, report-compare.html beside the first; of a URI, here"
    parser.add_argument("--out", type=path, metavar="FILE.html", help=f"file of the page ({default})")
    parser.add_argument("--plots", type=path, metavar="FOLDER", help="also write every chart there as PNG and SVG")


def run(arguments: Namespace) -> int:
    """Write the page and print its path."""
    from orchestrator.commands.report.write import write_report

    file, num_charts = write_report(arguments.run_dirs, arguments.out, arguments.plots)
    if arguments.plots is not None:
        print(f"plots: {arguments.plots} ({num_charts} charts, PNG and SVG)")
    print(f"report: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0
