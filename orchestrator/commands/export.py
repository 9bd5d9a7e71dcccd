"""`sdpo export RUN_DIR OUT [--step N | --best] …`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

NAME = "export"
HELP = "write a checkpoint of a run as a Hugging Face folder"


def add_arguments(parser: ArgumentParser) -> None:
    """Which checkpoint, and in which form."""
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make; an empty one may be there")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, metavar="N", help="the checkpoint after N steps (default: the newest)")
    which.add_argument("--best", action="store_true", help="the kept checkpoint with the highest held-out pass@1")
    parser.add_argument("--teacher", action="store_true", help="the moving average of an ema teacher, not the policy")
    parser.add_argument("--adapter", action="store_true", help="the LoRA adapter in peft's form, not merged")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: the run's model.dtype")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="where the run's model.path lies now")


def run(arguments: Namespace) -> int:
    """Export and say what came of it; reads the run directory only."""
    from orchestrator.export import ExportRequest, export
    from orchestrator.run_view import RunView

    options = {key: getattr(arguments, key) for key in ("out", "step", "best", "teacher", "adapter", "dtype", "base")}
    kept = export(RunView(arguments.run_dir), ExportRequest(**options))
    measured = "not measured" if kept.pass_at_1 is None else f"{kept.pass_at_1:.3f}"
    print(f"{arguments.out}: the weights after step {kept.steps}, held-out pass@1 {measured}")
    return 0
