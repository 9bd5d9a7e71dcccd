"""Writes docs/pictures/progress.svg: the live display as it stood in the middle of a run.

`python docs/make_progress_picture.py RUN_DIR` takes the figures from a run of `sdpo train`. Only how far the step under
way has got is not in its records: it is drawn with three quarters of its attempts judged.
"""

import io
import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.events import IncarnationBegan, StepRecorded
from orchestrator.progress.progress import Screen
from orchestrator.run_dir.run_view import RunView

TARGET = Path(__file__).resolve().parent / "pictures/progress.svg"
WIDTH = 92


def screen_of(view: RunView) -> tuple[Screen, list[str]]:
    """The display after half of the steps, and the lines above it."""
    now_s, said = 0.0, io.StringIO()
    screen = Screen(view.config, said, lambda: now_s, width=200, auto_refresh=False)
    screen.hear(IncarnationBegan(steps_done=0, records=[]))
    half = len(view.metrics) // 2
    for record in view.metrics[: half + 1]:
        finite: dict[str, Any] = {name: value for name, value in record.items() if value is not None}
        if record["step"] > 0:
            screen.state.add("generate", record["step"] - 1)
            now_s += finite["time/step_s"] + finite.get("time/record_samples_s", 0.0)
        screen.hear(StepRecorded(step=record["step"], metrics=finite))
    attempts = view.config.batch.tasks * view.config.batch.samples_per_task
    for i in range(attempts):
        screen.state.add("generate", half)
        if i < attempts * 3 // 4:
            screen.state.add("judge", half)
    for _ in range(view.config.batch.tasks // 2):
        screen.state.add("score", half)
    now_s += 0.4 * view.metrics[half]["time/step_s"]
    return screen, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.getvalue()).splitlines()


def main(run_dir: str) -> None:
    """Draw it. Raises `ConfigError` if there is no run directory."""
    screen, lines = screen_of(RunView(run_dir))
    console = Console(file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(line, highlight=False, markup=False)
    console.print(screen._draw())
    svg = console.export_svg(title=f"sdpo train {RunView(run_dir).name}.yaml")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")  # nothing is fetched
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1])
