"""`sdpo eval MODEL TASKS …`."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from orchestrator.commands import add_overrides

NAME = "eval"
HELP = "sample tasks with a model, judge the answers: pass@1, avg@k, pass@k with intervals"

SETTINGS = {
    "samples": "evaluation.samples_per_task",
    "temperature": "evaluation.temperature",
    "top_p": "evaluation.top_p",
    "max_response_tokens": "rollout.sampling.max_response_tokens",
    "seed": "seed",
    "limit": "tasks.max_heldout",
}
"""Options that are keys of the run config."""


def add_arguments(parser: ArgumentParser) -> None:
    """MODEL and TASKS, options, overrides."""
    parser.add_argument("model", metavar="MODEL", help="Hugging Face causal LM folder, or a run directory")
    parser.add_argument("tasks", metavar="TASKS", help="task file, or what --adapter reads")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, metavar="N", help="of a run directory: its checkpoint after N steps")
    which.add_argument("--best", action="store_true", help="of a run directory: its best kept checkpoint")
    parser.add_argument("--samples", type=int, metavar="N", help="samples of a task")
    parser.add_argument("--k", type=_numbers, metavar="1,4,8", help="for avg@k and pass@k (default: 1, 2, 4, …, N)")
    parser.add_argument("--temperature", type=float, metavar="T")
    parser.add_argument("--top-p", type=float, metavar="P")
    parser.add_argument("--max-response-tokens", type=int, metavar="N")
    parser.add_argument("--seed", type=int, metavar="S")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N tasks only")
    parser.add_argument("--adapter", metavar="NAME", help="what makes tasks of TASKS; none: they are tasks already")
    parser.add_argument("--option", action="append", default=[], metavar="key=value", help="of the adapter; repeatable")
    parser.add_argument("--run", type=Path, metavar="RUN.yaml", dest="run_file", help="engine and env settings")
    parser.add_argument("--train-tasks", metavar="FILE", help="training tasks, to warn of an overlap")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="the result")
    parser.add_argument("--save-samples", type=Path, metavar="FILE.jsonl", help="every answer with its verdict")
    add_overrides(parser)


def run(arguments: Namespace) -> int:
    """Evaluate and print the table."""
    from orchestrator.eval_config import Request
    from orchestrator.eval_model import local_model
    from orchestrator.eval_run import evaluate
    from orchestrator.eval_table import table

    given = vars(arguments)
    same = ("tasks", "step", "best", "run_file", "train_tasks", "adapter", "out", "save_samples")
    request = Request(
        **{name: given[name] for name in same},
        model=local_model(arguments.model),
        ks=arguments.k,
        options=tuple(arguments.option),
        settings={key: given[name] for name, key in SETTINGS.items() if given[name] is not None},
        overrides=tuple(arguments.override),
    )
    print(table(evaluate(request)))
    if request.out is not None:
        print(f"result: {request.out}")
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(number) for number in text.split(",")}))
    except ValueError:
        raise ArgumentTypeError(f"{text!r}: allowed: whole numbers with commas between, for example 1,4,8") from None
