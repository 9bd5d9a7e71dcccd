"""The report without a browser: groups, intervals, parts of time, thresholds, words for what is missing."""

import csv
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.commands.report.charts import CHAPTERS, Axis, Chart
from orchestrator.commands.report.curves import curve_figures, window_and_threshold
from orchestrator.commands.report.data import binned, differing_settings, make_report, mean_over_runs
from orchestrator.commands.report.figure import Figure, step_ticks
from orchestrator.commands.report.intervals import mean_interval, t_quantile
from orchestrator.commands.report.page import script_json
from orchestrator.commands.report.palette import PART_COLOURS, distance, kind_colours
from orchestrator.commands.report.stages import STEP_STAGES, binned_parts, stage_seconds
from orchestrator.commands.report.write import figures_of
from orchestrator.run_dir.run_view import RunView
from sdpo.health import RULES, HealthMonitor
from tests.fixtures.report import heldout, step_record, whole_run, write_report_run


def report_of(*folders: Path) -> Any:
    return make_report([RunView(folder) for folder in folders])


def rows_of(figure: Figure) -> list[dict[str, str]]:
    assert figure.spec is not None
    return list(csv.DictReader(figure.spec["data"]["values"].splitlines()))


def all_figures(report: Any) -> dict[str, Figure]:
    return {figure.name: figure for chapter in CHAPTERS for figure in figures_of(report, chapter)}


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
    assert differing_settings(g.runs[0].view for g in report.groups) == {
        "learner.optimizer.learning_rate": [7e-4, 1e-3]
    }
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
    every = {metric: 0.1 * place for place, (metric, _) in enumerate(STEP_STAGES.values(), 1)}
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
    found = {name: figure for name, figure in all_figures(report_of(folder)).items() if name.startswith("idle")}
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
    [rule] = [rule for rule in RULES.values() if metric in rule.thresholds]
    both: Any = window_and_threshold(rule, metric, run)
    means, below = map(dict, both)
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
    both = all_figures(report_of(whole_run(tmp_path / "sdpo"), grpo))["train-teacher-gap"]
    assert {row["run"] for row in rows_of(both) if row["value"]} == {"sdpo"}
    assert "Not recorded by grpo: train/teacher_gap (the objective has no teacher in hindsight)." in both.caption
    alone = all_figures(report_of(grpo))
    for name, words in (("train-teacher-gap", "train/teacher_gap"), ("memory", "memory/*"), ("speed", "speed/*")):
        figure = alone[name]
        assert figure.spec is None
        assert f"Not recorded: {words}" in figure.caption


def test_values_that_were_not_finite_break_the_line_and_alarms_are_marked(tmp_path: Path) -> None:
    records = [step_record(1), step_record(2) | {"train/entropy": None}, step_record(3)]
    alarm = {"name": "entropy_collapse", "step": 3, "message": "entropy fell; threshold: health.entropy_share=0.3"}
    report = report_of(write_report_run(tmp_path / "run", records, alarms=[alarm]))
    [figure] = curve_figures(report, Chart("teacher", "train/entropy", "Entropy", Axis("nats"), "lower"))
    assert [row["value"] for row in rows_of(figure)] == ["0.2", "", "0.2"]
    assert figure.spec is not None
    [mark] = [layer for layer in figure.spec["layer"] if layer["mark"].get("shape") == "triangle-down"]
    assert "3,0.2,run,run,entropy_collapse,entropy fell\n" in figure.spec["datasets"][mark["data"]["name"]]


def test_alarms_about_a_metric_are_on_its_curve_with_their_fixed_limits(tmp_path: Path) -> None:
    alarm = {"name": "not_finite", "step": 2, "message": "2 optimizer steps skipped; threshold: …"}
    records = [step_record(1), step_record(2) | {"train/steps_not_finite": 2.0, "train/is_clipped_fraction": 0.5}]
    figures = figures_of(report_of(write_report_run(tmp_path / "run", records, alarms=[alarm])), CHAPTERS[-1])
    shown = {figure.name: figure for figure in figures}
    skipped = shown["train-steps-not-finite"]
    assert skipped.spec is not None
    drawn = str(skipped.spec["datasets"])
    assert "2,2,run,run,not_finite,2 optimizer steps skipped" in drawn
    assert "0,health.max_steps_not_finite=0" in drawn
    assert "Triangles: an alarm about this metric began." in skipped.caption
    assert "health.pass_rate_share" in shown["watched-rollout-pass-rate"].caption
    assert shown["train-is-clipped-fraction"].title == "Tokens at the cap of the ratio: is"
    assert shown["train-clipped-fraction"].caption == "0 in every step: train/tis_clipped_fraction."


def test_a_reward_that_is_the_pass_rate_is_said_in_a_sentence(tmp_path: Path) -> None:
    same = report_of(write_report_run(tmp_path / "same", [step_record(1)]))
    assert figures_of(same, CHAPTERS[0])[2].caption == "Equal to rollout/pass_rate in every step."
    other = report_of(write_report_run(tmp_path / "other", [step_record(1, **{"rollout/reward": 0.3})]))
    assert rows_of(figures_of(other, CHAPTERS[0])[2])[0]["value"] == "0.3"


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


@pytest.mark.parametrize(
    ("steps", "ticks"),
    [
        ([1, 2], [1, 2]),
        ([0, 1, 2], [0, 1, 2]),
        ([1, 2, 3], [1, 2, 3]),
        ([7], [7]),
        ([3.0, 4.5, 6.0], [3, 4, 5, 6]),
        (range(13), [0, 2, 4, 6, 8, 10, 12]),
        (range(1, 49), [5, 10, 15, 20, 25, 30, 35, 40, 45]),
        ([0, 1000], [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]),
        ([], []),
    ],
)
def test_the_marks_of_steps_are_whole_numbers(steps: list[float], ticks: list[int]) -> None:
    assert step_ticks(steps) == ticks


def test_short_runs_have_whole_steps_on_every_axis(tmp_path: Path) -> None:
    report = report_of(write_report_run(tmp_path / "short", [{"step": 0, **heldout(0.5)}, *map(step_record, (1, 2))]))
    figures = all_figures(report)
    for name, ticks in (("rollout-pass-rate", [1, 2]), ("heldout-pass-at-1", [0]), ("outcomes-1", [1, 2])):
        spec = figures[name].spec
        assert spec is not None
        layer = next(layer for layer in spec.get("layer", [spec]) if "axis" in layer["encoding"].get("x", {}))
        assert layer["encoding"]["x"]["axis"]["values"] == ticks, name


def test_kinds_of_ones_own_have_colours_that_can_be_told_apart() -> None:
    known = ("passed", "wrong_answer", "runtime_error", "timeout", "truncated")
    for own in (("fixed",), ("fixed", "valid", "too_large"), ("a", "b", "c", "d", "e")):
        colours = kind_colours([*known, *own])
        nearest = min(distance(colours[a], colours[b]) for a in own for b in colours if a != b)
        assert nearest > 140, (own, nearest)
    assert distance(*(kind_colours(["fixed", "timeout"])[kind] for kind in ("fixed", "timeout"))) > 250
    many = kind_colours([f"kind-{i}" for i in range(2 * len(PART_COLOURS))])
    assert list(many) == sorted(many)
    assert set(many.values()) == set(PART_COLOURS)


def test_better_does_not_speak_of_passed_where_no_kind_is_called_so(tmp_path: Path) -> None:
    record = {key: value for key, value in step_record(1).items() if not key.startswith("verdict/")}
    own = all_figures(
        report_of(write_report_run(tmp_path / "own", [record | {"verdict/valid": 0.5, "verdict/bad": 0.5}]))
    )
    usual = all_figures(report_of(write_report_run(tmp_path / "usual", [record | {"verdict/passed": 1.0}])))
    assert own["outcomes-1"].better == "more of the kinds that are a success is better"
    assert usual["outcomes-1"].better == "more passed is better"


def test_rewards_that_differ_from_the_pass_rate_are_shown(tmp_path: Path, capsys: Any) -> None:
    def evaluated(reward: float) -> dict[str, float]:
        return heldout(0.0) | {"heldout/reward": reward, "heldout/reward_low": reward, "heldout/reward_high": reward}

    best = {"rollout/reward_best": 1.25, "groups/reward_best": 1.2}
    records = [{"step": 0, **evaluated(1.0)}, step_record(1) | best, step_record(2) | best | evaluated(1.5)]
    folder = write_report_run(tmp_path / "packing", records)
    figures = all_figures(report_of(folder))
    assert {row["value"] for row in rows_of(figures["heldout-reward"])} >= {"1", "1.5"}
    assert {row["value"] for row in rows_of(figures["rollout-reward-best"])} == {"1.25"}
    assert {row["value"] for row in rows_of(figures["groups-reward-best"])} == {"1.2"}
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "held-out reward 1 → 1.5" in page
    assert "1.500 [1.500 to 1.500] at step 2" in page
    plain = write_report_run(tmp_path / "plain", [{"step": 0, **heldout(0.5)}, step_record(1)])
    assert main(["report", str(plain)]) == 0
    assert "held-out reward, first" not in (plain / "report.html").read_text()
    assert "held-out reward, first" in page
