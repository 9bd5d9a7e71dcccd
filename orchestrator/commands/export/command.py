"""`sdpo export RUN_DIR OUT [--step N | --best] …`."""

from argparse import ArgumentParser, Namespace

from orchestrator.commands import location, number, path
from sdpo.bounds import Steps

NAME = "export"
HELP = "write a checkpoint of a run as a Hugging Face folder"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the checkpoint and the form of the export."""
    parser.add_argument("run_dir", metavar="RUN_DIR", type=location, help="a path or a URI")
    parser.add_argument("out", metavar="OUT", type=path, help="folder to write; it must not exist or be empty")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--step", type=number(Steps), metavar="N", help="the checkpoint after N steps (default: the newest)"
    )
    which.add_argument("--best", action="store_true", help="the checkpoint with the best held-out results")
    parser.add_argument(
        "--teacher", action="store_true", help="the moving average of an ema teacher instead of the policy"
    )
    parser.add_argument("--adapter", action="store_true", help="the LoRA adapter in the format of peft, not merged")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: the run's model.dtype")
    parser.add_argument("--base", type=path, metavar="FOLDER", help="where the model of the run's model.path is now")


def run(arguments: Namespace) -> int:
    """Export a checkpoint and print what was exported; never writes to the run directory."""
    from orchestrator.commands.export.export import ExportRequest, export
    from orchestrator.run_dir.run_view import RunView
    from orchestrator.run_dir.wording import scores

    options = {key: getattr(arguments, key) for key in ("out", "step", "best", "teacher", "adapter", "dtype", "base")}
    checkpoint = export(RunView(arguments.run_dir), ExportRequest(**options))
    measured = scores(checkpoint.pass_at_1, checkpoint.reward)
    print(f"{arguments.out}: the weights after step {checkpoint.steps}, {measured}")
    return 0
