"""`sdpo inspect RUN_DIR`."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

NAME = "inspect"
HELP = "show recorded attempts of a run in the terminal, every token coloured by the teacher's credit"


def add_arguments(parser: ArgumentParser) -> None:
    """RUN_DIR and the filters."""
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--step", type=_step, metavar="N|first|last", help="without it, every step, newest first")
    parser.add_argument("--task", metavar="ID")
    parser.add_argument("--sample", type=int, metavar="I", help="place in the task's group")
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument("--success", dest="success", action="store_true", default=None, help="successes only")
    outcome.add_argument("--failure", dest="success", action="store_false", default=None, help="failures only")
    parser.add_argument("--kind", help="of verdict, for example wrong_answer")
    parser.add_argument(
        "--limit", type=_limit, default=20, metavar="N", help="lines at most; 1 shows the first in full"
    )
    parser.add_argument("--tokens", action="store_true", help="numbers of every token, not only of the strongest")


def run(arguments: Namespace) -> int:
    """Print a list of the attempts that fit, or the whole story if it is one."""
    from rich.console import Console

    from orchestrator.inspect_choice import Wanted, choose
    from orchestrator.inspect_show import show_list, show_story
    from orchestrator.run_view import RunView

    wanted = Wanted(
        step=arguments.step,
        task=arguments.task,
        sample=arguments.sample,
        success=arguments.success,
        kind=arguments.kind,
    )
    chosen = choose(RunView(arguments.run_dir), wanted, arguments.limit)
    shown, console = chosen[: arguments.limit], Console()
    if len(shown) == 1:
        show_story(console, shown[0], all_tokens=arguments.tokens)
    else:
        show_list(console, shown)
        if len(chosen) > len(shown):
            console.print(f"the first {len(shown)}; --limit shows more, --task and --sample one in full", style="dim")
    return 0


def _step(text: str) -> int | str:
    if text in ("first", "last"):
        return text
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r}; allowed: a number, first, last")
    return int(text)


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}; allowed: a number from 1")
    return int(text)
