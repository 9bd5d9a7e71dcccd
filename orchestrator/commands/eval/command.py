"""`sdpo eval MODEL TASKS …`."""

from argparse import ArgumentParser, Namespace

from orchestrator.commands import add_overrides, location, number, path
from sdpo.bounds import Count, LargeCount, Rate, Samples, Seed, Steps, Temperature, Tokens

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
"""The options that set keys of the run config."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add MODEL, TASKS, the options and overrides."""
    parser.add_argument(
        "model", metavar="MODEL", type=location, help="Hugging Face causal LM folder, or a run directory"
    )
    parser.add_argument("tasks", metavar="TASKS", type=location, help="task file, or what --adapter reads")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--step", type=number(Steps), metavar="N", help="take a run directory's checkpoint after N steps"
    )
    which.add_argument("--best", action="store_true", help="take the best checkpoint that a run directory keeps")
    parser.add_argument("--samples", type=number(Samples), metavar="N", help="number of samples of each task")
    parser.add_argument("--k", type=_numbers, metavar="1,4,8", help="k of avg@k and pass@k (default: 1, 2, 4, …, N)")
    parser.add_argument("--temperature", type=number(Temperature), metavar="T")
    parser.add_argument("--top-p", type=number(Rate), metavar="P")
    parser.add_argument("--max-response-tokens", type=number(Tokens), metavar="N")
    parser.add_argument("--seed", type=number(Seed), metavar="S")
    parser.add_argument("--limit", type=number(LargeCount), metavar="N", help="evaluate the first N tasks only")
    parser.add_argument("--adapter", metavar="NAME", help="adapter that reads TASKS; none: TASKS is a task file")
    parser.add_argument("--option", action="append", default=[], metavar="key=value", help="adapter option; repeatable")
    parser.add_argument("--run", type=path, metavar="RUN.yaml", dest="run_file", help="engine and environment settings")
    parser.add_argument(
        "--train-tasks", metavar="FILE", type=location, help="warn of tasks that are among these training tasks"
    )
    parser.add_argument("--out", type=path, metavar="FILE.json", help="write the result")
    parser.add_argument("--save-samples", type=path, metavar="FILE.jsonl", help="write every answer with its verdict")
    add_overrides(parser)


def run(arguments: Namespace) -> int:
    """Evaluate and print the table; return 0."""
    from orchestrator.commands.eval.config import Request
    from orchestrator.commands.eval.console import table
    from orchestrator.commands.eval.model import local_model
    from orchestrator.commands.eval.run import evaluate

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
    """Type of --k: whole numbers with commas between."""
    return tuple(sorted({number(Count)(part) for part in text.split(",")}))
