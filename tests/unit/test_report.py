"""The report without a browser: groups, intervals, parts of time, thresholds, words for what is missing."""

import csv
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.report.chapters import chapters
from orchestrator.report.curves import metric_figure
from orchestrator.report.data import binned, differing_settings, make_report, mean_over_runs
from orchestrator.report.figure import Figure
from orchestrator.report.health_figures import moving_threshold, window_mean
from orchestrator.report.intervals import mean_interval, t_quantile
from orchestrator.report.lines import Axis
from orchestrator.report.page import script_json
from orchestrator.report.stages import STAGES, binned_parts, stage_seconds
from orchestrator.run_view import RunView
from sdpo.health import HealthMonitor
from tests.report_fixtures import heldout, step_record, whole_run, write_report_run


def report_of(*folders: Path) -> Any:
    return make_report([RunView(folder) for folder in folders])


def rows_of(figure: Figure) -> list[dict[str, str]]:
    assert figure.spec is not None
    return list(csv.DictReader(figure.spec["data"]["values"].splitlines()))


def figures_of(report: Any) -> dict[str, Figure]:
    return {figure.name: figure for chapter in chapters(report) for figure in chapter.figures}


def test_runs_that_differ_in_seed_name_and_directory_are_one_group_others_are_not(tmp_path: Path) -> None:
    folders = [whole_run(tmp_path / f"a/coder-{seed}", seed) for seed in range(3)]
    folders.append(whole_run(tmp_path / "other", overrides=["learner.optimizer.learning_rate=1e-3"]))
    folders.append(whole_run(tmp_path / "b/coder-0", 3))
    report = report_of(*folders)
    assert [len(group.runs) for group in report.groups] == [4, 1]
    assert [group.label for group in report.groups] == ["coder", "other"]
    labels = [run.label for run in report.runs]
    assert len(set(labels)) == 5
    assert [label for label in labels if "coder-0" in label] == [
        f"coder-0 ({tmp_path}/a/coder-0)",
        f"coder-0 ({tmp_path}/b/coder-0)",
    ]
    assert differing_settings(report.groups) == {"learner.optimizer.learning_rate": [7e-4, 1e-3]}
    assert len({group.colour for group in report.groups}) == 2


def test_the_interval_over_seeds_is_students() -> None:
    mean, low, high = mean_interval([0.5, 0.6, 0.9])
    half = 4.303 * statistics.stdev([0.5, 0.6, 0.9]) / math.sqrt(3)
    assert (mean, low, high) == pytest.approx((2 / 3, 2 / 3 - half, 2 / 3 + half))
    assert t_quantile(40) == pytest.approx(2.0211, abs=2e-4)
    assert t_quantile(30) > t_quantile(31) > 1.96
    with pytest.raises(ValueError, match="at least two"):
        mean_interval([0.5])


def test_means_are_drawn_where_every_seed_has_a_finite_value() -> None:
    lines: Any = [[(1, 0.0), (2, 0.2), (3, None)], [(1, 1.0), (2, 0.4), (3, 0.5), (4, 0.6)]]
    found = mean_over_runs(lines)
    assert [(step, mean) for step, mean, _, _ in found] == [(1, 0.5), (2, pytest.approx(0.3))]


def test_bins_are_means_at_their_middle_and_step_0_stays_alone() -> None:
    points: Any = [(step, float(step)) for step in range(7)] + [(7, None), (8, None), (9, None)]
    assert binned(points, 3) == [(0.0, 0.0), (2.0, 2.0), (5.0, 5.0), (8.0, None)]
    assert binned(points, 1) == points


def test_the_parts_of_a_step_add_up_to_it() -> None:
    every = {metric: 0.1 * place for place, (metric, _) in enumerate(STAGES.values(), 1)}
    record = {"step": 1, **every, "time/step_s": 5.0}
    parts = stage_seconds(record)
    assert parts is not None
    assert sum(parts.values()) == pytest.approx(5.0)
    assert parts["other"] == pytest.approx(5.0 - sum(every.values()))
    assert stage_seconds({"step": 0, "time/evaluate_s": 1.0}) is None
    tables = [(step, stage_seconds(step_record(step, **{"time/step_s": 4.0 + step})) or {}) for step in range(1, 101)]
    bars = binned_parts(tables, 40)
    edges = sorted({(first, last) for first, last, _, _ in bars})
    assert (edges[0], edges[-1], len(edges)) == ((1, 3), (100, 100), 34)
    for first, last in edges:
        total = sum(value for start, _, _, value in bars if start == first)
        assert total == pytest.approx(statistics.fmean(4.0 + step for step in range(first, last + 1)))


def test_idle_bars_are_shares_of_a_roles_time_by_what_it_waits_for(tmp_path: Path) -> None:
    waits = {"time/busy/env_s": 1.0, "time/idle/env/generate_s": 2.0, "time/idle/env/train_s": 1.0}
    folder = write_report_run(tmp_path / "run", [step_record(step, **waits) for step in (1, 2)])
    found = {name: figure for name, figure in figures_of(report_of(folder)).items() if name.startswith("idle")}
    assert list(found) == ["idle-env-1"]
    rows = [(row["steps"], row["part"], float(row["value"])) for row in rows_of(found["idle-env-1"])]
    parts = [("busy", 0.25), ("generate", 0.5), ("train", 0.25)]
    assert rows == [(str(step), name, value) for step in (1, 2) for name, value in parts]
    assert [name for name, _ in found["idle-env-1"].key] == ["busy", "generate", "train"]


@pytest.mark.parametrize("metric", ["rollout/pass_rate", "train/entropy", "rollout/response_tokens"])
def test_drawn_thresholds_are_those_of_the_monitor(tmp_path: Path, metric: str) -> None:
    values = [0.2 + 0.7 * math.sin(step / 9) ** 2 for step in range(60)]
    steady = {"rollout/pass_rate": 0.5, "rollout/pass_rate_error": 0.0, "train/entropy": 1.0}
    records = [{"step": i, **steady, "rollout/response_tokens": 9.0, metric: v} for i, v in enumerate(values, 1)]
    folder = write_report_run(tmp_path / "run", records, ["health.excusing_rise=none", "health.entropy_share=0.7"])
    [run] = report_of(folder).runs
    below: Any = dict(moving_threshold(metric, run))
    means: Any = dict(window_mean(metric, run))
    drawn = [step for step, limit in below.items() if means[step] < limit]
    monitor = HealthMonitor(run.view.config.health)
    sounded = []
    for record in records:
        monitor.observe(int(record["step"]), record)
        sounded += [record["step"]] if monitor.sounding else []
    assert drawn == sounded
    assert drawn


def test_runs_without_a_teacher_are_named_and_a_metric_that_nobody_has_is_said_in_words(tmp_path: Path) -> None:
    without = {"train/teacher_gap", "memory/learner_bytes", "speed/generated_tokens_per_s"}
    records = [{k: v for k, v in step_record(step).items() if k not in without} for step in (1, 2)]
    grpo = write_report_run(tmp_path / "grpo", records, ["objective.kind=grpo"])
    both = figures_of(report_of(whole_run(tmp_path / "sdpo"), grpo))["train-teacher-gap"]
    assert {row["run"] for row in rows_of(both) if row["value"]} == {"sdpo"}
    assert "Not recorded by grpo: train/teacher_gap (the objective has no teacher in hindsight)." in both.caption
    alone = figures_of(report_of(grpo))
    for name, words in (("train-teacher-gap", "train/teacher_gap"), ("memory", "memory/*"), ("speed", "speed/*")):
        figure = alone[name]
        assert figure.spec is None
        assert f"Not recorded: {words}" in figure.caption


def test_values_that_were_not_finite_break_the_line_and_alarms_are_marked(tmp_path: Path) -> None:
    records = [step_record(1), step_record(2) | {"train/entropy": None}, step_record(3)]
    alarm = {"name": "entropy_collapse", "step": 3, "message": "entropy fell; threshold: health.entropy_share=0.3"}
    report = report_of(write_report_run(tmp_path / "run", records, alarms=[alarm]))
    figure = metric_figure(report, "train/entropy", "Entropy", Axis(title="nats"))
    assert [row["value"] for row in rows_of(figure)] == ["0.2", "", "0.2"]
    assert figure.spec is not None
    [mark] = [layer for layer in figure.spec["layer"] if layer["mark"].get("shape") == "triangle-down"]
    assert "3,0.2,run,run,entropy_collapse,entropy fell\n" in figure.spec["datasets"][mark["data"]["name"]]


STATES: dict[str, list[dict[str, Any]]] = {
    "nothing-yet": [],
    "before-training": [{"step": 0, **heldout(0.1)}],
    "no-interval": [{"step": 0, **heldout(0.1), "heldout/pass@1_low": None, "heldout/pass@1_high": None}],
    "no-heldout": [step_record(1)],
    "not-finite": [step_record(step) | {"train/grad_norm": None, "train/entropy": None} for step in (1, 2)],
}


@pytest.mark.parametrize("state", ["nothing-yet", "not-finite"])
def test_any_state_of_a_run_has_a_report(tmp_path: Path, capsys: Any, state: str) -> None:
    folder = write_report_run(tmp_path / state, STATES[state])
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text().endswith("</html>\n")
    assert str(folder / "report.html") in capsys.readouterr().out


def test_seeds_in_different_states_make_one_report(tmp_path: Path, capsys: Any) -> None:
    folders = [str(write_report_run(tmp_path / state, records)) for state, records in STATES.items()]
    assert main(["report", *folders, folders[0]]) == 0
    assert "(5 seeds)" in (tmp_path / "report-compare.html").read_text()
    assert str(tmp_path / "report-compare.html") in capsys.readouterr().out


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, capsys: Any) -> None:
    assert main(["report", str(tmp_path)]) == 2
    run = write_report_run(tmp_path / "run", [step_record(1)])
    (tmp_path / "file").write_text("")
    assert main(["report", str(run), "--out", str(tmp_path / "file/report.html")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "allowed: a run directory" in lines[0]
    assert str(tmp_path / "file") in lines[1]
    assert "allowed: another --out or --plots" in lines[1]


def test_no_text_ends_a_script_or_an_element(tmp_path: Path) -> None:
    assert "</script" not in script_json({"a": "</script><!--\u2028"})
    folder = whole_run(tmp_path / "run")
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; fell" in page


def test_plots_are_pictures_of_every_chart(tmp_path: Path, capsys: Any) -> None:
    folder = write_report_run(tmp_path / "run", [{"step": 0, **heldout(0.1)}])
    assert main(["report", str(folder), "--plots", str(tmp_path / "plots")]) == 0
    names = sorted(file.name for file in (tmp_path / "plots").iterdir())
    assert {"heldout-pass-at-1.png", "heldout-pass-at-1.svg"} <= set(names)
    assert all((tmp_path / "plots" / name).stat().st_size > 1000 for name in names)
    assert f"({len(names) // 2} charts" in capsys.readouterr().out
