"""`sdpo inspect RUN_DIR`."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from orchestrator.commands import location, number
from sdpo.bounds import Count, CountOrZero, Steps

NAME = "inspect"
HELP = "show recorded attempts of a run in the terminal, each token coloured by the teacher's credit"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN_DIR and the filters."""
    parser.add_argument("run_dir", metavar="RUN_DIR", type=location, help="a path or a URI")
    parser.add_argument(
        "--step", type=_step, metavar="N|first|last", help="one recorded step (default: every step, newest first)"
    )
    parser.add_argument("--task", metavar="ID", help="attempts at one task")
    parser.add_argument(
        "--sample", type=number(CountOrZero), metavar="I", help="index of the attempt in the task's group"
    )
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument("--success", dest="success", action="store_true", default=None, help="successes only")
    outcome.add_argument("--failure", dest="success", action="store_false", default=None, help="failures only")
    parser.add_argument("--kind", help="kind of verdict, for example wrong_answer")
    parser.add_argument(
        "--limit",
        type=number(Count),
        default=20,
        metavar="N",
        help="number of attempts (default: 20); 1 shows one in full",
    )
    parser.add_argument("--tokens", action="store_true", help="print the numbers of all tokens")


def run(arguments: Namespace) -> int:
    """Print a list of the matching attempts, or everything about the attempt if there is only one."""
    from rich.console import Console

    from orchestrator.commands.inspect.choice import SampleFilter, choose
    from orchestrator.commands.inspect.show import show_attempt, show_list
    from orchestrator.run_dir.run_view import RunView

    wanted = SampleFilter(**{name: getattr(arguments, name) for name in ("step", "task", "sample", "success", "kind")})
    chosen = choose(RunView(arguments.run_dir), wanted, arguments.limit)
    shown, console = chosen[: arguments.limit], Console()
    if len(shown) == 1:
        show_attempt(console, shown[0], all_tokens=arguments.tokens)
    else:
        show_list(console, shown)
        if len(chosen) > len(shown):
            console.print(f"the first {len(shown)}; --limit shows more, --task and --sample one in full", style="dim")
    return 0


def _step(text: str) -> int | str:
    if text in ("first", "last"):
        return text
    try:
        return int(number(Steps)(text))
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, or first or last") from None
