"""Alarms: what raises one, what does not, what is written down, and what a resumed run remembers."""

import asyncio
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrator.train
from orchestrator.batch.step_metrics import batch_metrics
from orchestrator.cli import main
from orchestrator.events import listening
from orchestrator.progress.progress import Lines
from orchestrator.recorder import RunRecorder
from orchestrator.run_dir.alarm_log import AlarmLog
from orchestrator.run_dir.metrics_log import MetricsLog, read_metrics
from orchestrator.run_dir.run_dir import RunDir
from orchestrator.telemetry.run_telemetry import Telemetry
from sdpo.config import HealthConfig, RunConfig
from sdpo.errors import StoppedByAlarm
from sdpo.health import RULES, HealthMonitor
from sdpo.telemetry.meters import Meters
from sdpo.types import Verdict
from tests.fixtures.meters import RememberedMetrics
from tests.fixtures.orchestrator import group
from tests.fixtures.run import ROOT

Metrics = dict[str, float]
SHORT: dict[str, Any] = {"window_steps": 2, "reference_steps": 4}

# fmt: off
# Measured with examples/tinycoder.yaml, 16 tasks x 8 attempts a step: a healthy run of 48 steps.
HEALTHY_ENTROPY = [
    .088, .081, .084, .077, .072, .058, .054, .046, .041, .039, .031, .024, .024, .019, .016, .016,
    .013, .014, .014, .008, .011, .011, .011, .022, .007, .007, .007, .006, .005, .008, .004, .007,
    .006, .007, .003, .004, .008, .004, .003, .005, .006, .005, .004, .008, .008, .008, .004, .009,
]
HEALTHY_PASS_RATE = [
    .141, .203, .180, .203, .328, .539, .547, .633, .750, .711, .789, .820, .812, .867, .945, .875,
    .945, .906, .898, .961, .953, .969, .938, .906, .992, .961, .961, .961, .922, .906, .984, .930,
    .984, .977, 1.0, .977, .992, .961, .984, .992, .984, .984, .984, .977, .953, .961, .992, .969,
]
# The same with 8 tasks a step, a live teacher and a learning rate of 3e-3: it learns, then breaks at step 7.
BROKEN_PASS_RATE = [.109, .359, .375, .547, .688, .750, .078, .062, .0, .031] + [.0] * 10
BROKEN_ENTROPY = [.088, .068, .047, .035, .034, .080, .350, .431, .308, .510, .370, .051, .009, .002, .001] + [.0] * 5
# fmt: on


def quiet(**changes: float) -> Metrics:
    """A step that nothing is wrong with."""
    return {
        "train/entropy": 0.4,
        "train/loss": 0.1,
        "train/grad_norm": 1.0,
        "train/steps_not_finite": 0.0,
        "train/engine_gap_mean": 0.02,
        "train/engine_gap_p99": 0.2,
        "rollout/response_tokens": 800.0,
        "rollout/pass_rate": 0.5,
        "rollout/pass_rate_error": 0.02,
        "signal/samples_fraction": 0.8,
    } | {name.replace("__", "/"): value for name, value in changes.items()}


def begun(config: HealthConfig, steps: Iterable[Mapping[str, float | None]]) -> list[tuple[str, int]]:
    """Name and step of every alarm that begins; the first of `steps` is step 1."""
    monitor = HealthMonitor(config)
    return [(a.name, a.step) for n, metrics in enumerate(steps, start=1) for a in monitor.observe(n, metrics)]


def curve(pass_rates: list[float], entropies: list[float], pass_rate_error: float) -> list[Metrics]:
    errors = {"rollout__pass_rate_error": pass_rate_error}
    pairs = zip(pass_rates, entropies, strict=True)
    return [quiet(rollout__pass_rate=rate, train__entropy=entropy, **errors) for rate, entropy in pairs]


def test_a_measured_healthy_run_raises_none_and_a_measured_collapse_does() -> None:
    healthy, broken = curve(HEALTHY_PASS_RATE, HEALTHY_ENTROPY, 0.06), curve(BROKEN_PASS_RATE, BROKEN_ENTROPY, 0.08)
    assert begun(HealthConfig(), healthy) == []
    assert begun(HealthConfig(**SHORT), healthy) == []
    assert begun(HealthConfig(excusing_rise=None), healthy) == [("entropy_collapse", 18)], "falling entropy is learning"
    assert begun(HealthConfig(), broken)[0] == ("pass_rate_collapse", 10)
    assert begun(HealthConfig(**SHORT), broken)[0] == ("pass_rate_collapse", 8)
    assert ("entropy_collapse", 16) in begun(HealthConfig(), broken)


def test_answers_that_get_shorter_while_they_get_better_are_no_alarm() -> None:
    """The paper's Table 8: lengths fall threefold within a run, with a rising pass rate."""
    steps = [quiet(rollout__response_tokens=820 * 0.9**n, rollout__pass_rate=0.4 + 0.02 * n) for n in range(30)]
    assert begun(HealthConfig(), steps) == []
    worse = [metrics | {"rollout/pass_rate": 0.4} for metrics in steps]
    assert [name for name, _ in begun(HealthConfig(), worse)] == ["length_collapse"]


def after(num_quiet: int, **changes: float) -> list[Metrics]:
    return [quiet()] * num_quiet + [quiet(**changes)] * 6


# name, what changes, the value just within the limit, quiet steps before, steps until it sounds, words, the key's name
CASES: list[tuple[str, str, float, float, int, tuple[str, ...], str]] = [
    ("entropy_collapse", "train__entropy", 0.119, 0.121, 2, ("0.119", "0.4 (median", "=0.3"), "entropy_share"),
    ("length_collapse", "rollout__response_tokens", 319, 321, 2, ("319", "800 (median", "=0.4"), "length_share"),
    ("pass_rate_collapse", "rollout__pass_rate", 0.37, 0.38, 2, ("0.370", "0.500", "=0.75"), "pass_rate_share"),
    ("no_signal", "signal__samples_fraction", 0.04, 0.06, 2, ("4.0%", "=0.05"), "min_signal_share"),
    (
        "mismatch",
        "train__engine_gap_mean",
        0.11,
        0.1,
        1,
        ("gap_mean", "0.11 nats", "=0.1"),
        "max_engine_gap_mean",
    ),
    ("mismatch", "train__engine_gap_p99", 1.1, 1.0, 1, ("engine_gap_p99", "1.1 nats", "=1"), "max_engine_gap_p99"),
    ("not_finite", "train__steps_not_finite", 1, 0, 1, ("1 optimizer steps skipped", "=0"), "max_steps_not_finite"),
]


@pytest.mark.parametrize(("name", "metric", "bad", "good", "delay", "words", "key"), CASES, ids=[c[6] for c in CASES])
def test_each_threshold(
    name: str, metric: str, bad: float, good: float, delay: int, words: tuple[str, ...], key: str
) -> None:
    config = HealthConfig(**SHORT)
    assert begun(config, after(8, **{metric: bad})) == [(name, 8 + delay)], "one alarm for one episode"
    assert begun(config, after(8, **{metric: good})) == []
    off: dict[str, Any] = (
        {"max_engine_gap_mean": None, "max_engine_gap_p99": None} if name == "mismatch" else {key: None}
    )
    assert begun(HealthConfig(**SHORT, **off), after(8, **{metric: bad})) == []
    monitor = HealthMonitor(config)
    (message,) = [a.message for step, m in enumerate(after(8, **{metric: bad})) for a in monitor.observe(step, m)]
    assert all(word in message for word in (*words, f"health.{key}=")), message
    assert "\n" not in message
    assert len(message.split("; ")) >= 3, "what was seen, the threshold, what to try"


@pytest.mark.parametrize("name", ["train/loss", "train/grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_not_finite_is_an_alarm_at_once(name: str, value: float | None) -> None:
    assert begun(HealthConfig(), [quiet(), quiet() | {name: value}]) == [("not_finite", 2)]


def test_a_gap_that_is_not_a_number_is_a_mismatch() -> None:
    assert begun(HealthConfig(), [quiet(), quiet(train__engine_gap_p99=math.inf)]) == [("mismatch", 2)]
    assert begun(HealthConfig(max_engine_gap_p99=None), [quiet(train__engine_gap_p99=math.nan)]) == []


def test_a_drop_within_chance_is_no_alarm() -> None:
    steps = after(8, rollout__pass_rate=0.3)
    assert begun(HealthConfig(**SHORT), [s | {"rollout/pass_rate_error": 0.08} for s in steps]) == []
    assert begun(HealthConfig(**SHORT), [s | {"rollout/pass_rate_error": 0.04} for s in steps]) != []


def test_heldout_alarms_when_the_intervals_part_and_lasts_until_the_next_evaluation() -> None:
    def evaluated(rate: float, half_width: float) -> Metrics:
        ends = {"heldout/pass@1_low": rate - half_width, "heldout/pass@1_high": rate + half_width}
        return quiet() | {"heldout/pass@1": rate} | ends

    def run(half_width: float) -> list[Metrics]:
        best, worse, between = evaluated(0.6, half_width), evaluated(0.3, half_width), [quiet()] * 9
        return [best, *between, worse, *between, worse]

    assert begun(HealthConfig(), run(0.1)) == [("heldout_collapse", 11)]
    assert begun(HealthConfig(), run(0.2)) == [], "the intervals overlap"
    assert begun(HealthConfig(), [evaluated(0.6, 0.01), evaluated(0.46, 0.01)]) == [], (
        "above three quarters of the best"
    )


def test_rewards_are_watched_where_a_share_of_them_is_set() -> None:
    fell = [quiet(rollout__reward=1.0, rollout__reward_error=0.01)] * 8
    fell += [quiet(rollout__reward=0.7, rollout__reward_error=0.01)] * 6
    assert begun(HealthConfig(**SHORT), fell) == []
    assert begun(HealthConfig(**SHORT, reward_share=0.75), fell) == [("reward_collapse", 10)]
    assert begun(HealthConfig(**SHORT, reward_share=0.6), fell) == []
    noisy = [step | {"rollout/reward_error": 0.2} for step in fell]
    assert begun(HealthConfig(**SHORT, reward_share=0.75), noisy) == [], "within chance"
    below_0 = [step | {"rollout/reward": step["rollout/reward"] - 2.0} for step in fell]
    assert begun(HealthConfig(**SHORT, reward_share=0.75), below_0) == [("reward_collapse", 10)], "-1.3 after -1"
    assert begun(HealthConfig(**SHORT, reward_share=0.6), below_0) == []


def test_heldout_rewards_alarm_when_the_intervals_part() -> None:
    def evaluated(reward: float) -> Metrics:
        ends = {"heldout/reward_low": reward - 0.1, "heldout/reward_high": reward + 0.1}
        return quiet() | {"heldout/reward": reward} | ends

    config = HealthConfig(reward_share=0.75)
    assert begun(config, [evaluated(2.0), evaluated(1.4)]) == [("heldout_reward_collapse", 2)]
    assert begun(config, [evaluated(2.0), evaluated(1.6)]) == []
    assert begun(config, [evaluated(-1.0), evaluated(-1.3)]) == [("heldout_reward_collapse", 2)]
    assert begun(config, [evaluated(-1.0), evaluated(-1.2)]) == []
    assert begun(HealthConfig(), [evaluated(2.0), evaluated(1.4)]) == []


def test_a_rising_reward_excuses_shorter_answers_where_rewards_are_watched() -> None:
    steps = [
        quiet(rollout__response_tokens=820 * 0.9**n, rollout__pass_rate=1.0, rollout__reward=1.0 + 0.05 * n)
        for n in range(30)
    ]
    assert [name for name, _ in begun(HealthConfig(), steps)] == ["length_collapse"]
    assert begun(HealthConfig(reward_share=0.75), steps) == []


def test_an_episode_ends_after_a_window_without_cause() -> None:
    config = HealthConfig(window_steps=3, reference_steps=3)
    bad, good = quiet(train__engine_gap_mean=1.0), quiet()
    assert begun(config, [bad, good, bad, good, good, bad]) == [("mismatch", 1)]
    assert begun(config, [bad, good, good, good, bad]) == [("mismatch", 1), ("mismatch", 5)]
    monitor = HealthMonitor(config)
    monitor.observe(1, bad)
    assert monitor.metrics() == dict.fromkeys((f"health/{n}" for n in RULES), 0.0) | {
        "health/mismatch": 1.0,
        "health/alarms": 1.0,
    }
    monitor.observe(2, good)
    assert set(monitor.metrics().values()) == {0.0}


def test_the_documented_table_is_that_of_the_rules() -> None:
    def form(threshold: float | None) -> str:
        return "none" if threshold is None else f"{threshold:g}"

    rows = [line for line in (ROOT / "docs/health.md").read_text().splitlines() if re.match(r"\| `\w+` \| ", line)]
    alarms = [row for row in rows if row.split("`")[1] in RULES]
    assert alarms == [
        f"| `{rule.name}` | {rule.text} | "
        + ", ".join(f"`{key}` = {form(getattr(HealthConfig(), key))}" for key in rule.thresholds.values())
        + " |"
        for rule in RULES.values()
    ]


VALUES = st.one_of(st.none(), st.floats(width=32))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(sorted(quiet())), VALUES), max_size=30), st.integers(1, 4))
def test_any_metrics_are_judged_and_a_replay_judges_alike(steps: list[dict[str, Any]], window: int) -> None:
    config = HealthConfig(window_steps=window, reference_steps=4)
    first, again = HealthMonitor(config), HealthMonitor(config)
    for step, metrics in enumerate(steps):
        record = {k: v if v is not None and math.isfinite(v) else None for k, v in metrics.items()}
        alarms = first.observe(step, metrics)
        assert alarms == again.observe(step, json.loads(json.dumps(record)))
        assert all("\n" not in alarm.message for alarm in alarms)
        assert first.metrics() == again.metrics()


class FakeHouse:
    """A learner that saves a file and counts."""

    def __init__(self) -> None:
        self.gang, self.saves = self, 0
        self.actors: list[Any] = []

    async def save(self, folder: str, *_: Any, **__: Any) -> None:
        self.saves += 1
        await asyncio.to_thread(self._write, Path(folder))

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "shard").write_text("x")


class UnlockedDir(RunDir):
    """Two of one directory may follow each other in this process without being closed."""

    def require_held(self) -> None:
        pass


class Books(RunRecorder):
    """With the readers that a run binds."""

    readers: list[Any]


def books_of(folder: Path, steps_done: int = 0, **health: Any) -> tuple[Books, FakeHouse]:
    sections = {"record": {"samples_per_step": 0, "tensorboard": False}, "checkpoint": {"every_steps": 0}}
    config = RunConfig.model_validate({"dir": str(folder), "name": "run", "health": SHORT | health, **sections})
    run_dir = UnlockedDir(config)
    run_dir.path.mkdir(exist_ok=True)
    log = MetricsLog(run_dir.path, resumed_steps=steps_done, tensorboard=False)
    actors: Any = FakeHouse()
    nobody: Any = None
    alarm_log = AlarmLog(config.health, run_dir.path)
    telemetry = Telemetry(Meters(RememberedMetrics(), "run-1"), run_dir.path, None)
    books = Books(config, run_dir, actors, alarm_log, telemetry, nobody, [], nobody, steps_done or None)
    books.readers = [log.hear, alarm_log.hear, telemetry.hear, Lines(config, sys.stdout).hear]
    return books, actors


def keep(recorder: Books, steps: range, step: Callable[[int], Metrics]) -> None:
    async def all_steps() -> None:
        for number in steps:
            await recorder.record(number, [], step(number))

    with listening(*recorder.readers):
        asyncio.run(all_steps())


def breaking(step: int) -> Metrics:
    """Engine and learner part from step 3 on."""
    return quiet(train__engine_gap_mean=5.0) if step >= 3 else quiet()


def test_an_alarm_is_checkpointed_written_and_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder, actors = books_of(tmp_path)
    keep(recorder, range(1, 7), breaking)
    assert actors.saves == 1
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step-000003.0"]
    lines = [json.loads(line) for line in (tmp_path / "run/alarms.jsonl").read_text().splitlines()]
    assert [(a["name"], a["step"]) for a in lines] == [("mismatch", 3)]
    assert f"ALARM mismatch at step 3: {lines[0]['message']}\n" in capsys.readouterr().out
    records = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [r["health/mismatch"] for r in records] == [r["health/alarms"] for r in records] == [0, 0, 1, 1, 1, 1]


def test_stop_ends_the_run_after_the_checkpoint_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    recorder, actors = books_of(tmp_path, on_alarm="stop")
    with pytest.raises(StoppedByAlarm, match=r"after step 3 by mismatch \(health\.on_alarm=stop\).*5 nats; threshold"):
        keep(recorder, range(1, 7), breaking)
    assert actors.saves == 1
    assert (tmp_path / "run/checkpoints/step-000003.0/state.json").exists()
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == 3
    again, actors = books_of(tmp_path, steps_done=3, on_alarm="stop")
    keep(again, range(4, 7), breaking)
    assert actors.saves == 0, "the alarm that stopped the run goes on; it does not begin again"


def test_alarms_of_steps_that_a_resumed_run_does_again_are_forgotten(tmp_path: Path) -> None:
    recorder, _ = books_of(tmp_path)
    keep(recorder, range(1, 7), breaking)
    with (tmp_path / "run/alarms.jsonl").open("a") as file:
        file.write('{"name": "mismatch", "st')
    again, actors = books_of(tmp_path, steps_done=2)
    assert (tmp_path / "run/alarms.jsonl").read_text() == ""
    keep(again, range(3, 5), breaking)
    assert actors.saves == 1
    assert [json.loads(line)["step"] for line in (tmp_path / "run/alarms.jsonl").read_text().splitlines()] == [3]


def test_the_exit_code_of_an_alarm_is_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(_: RunConfig) -> None:
        raise StoppedByAlarm("stopped after step 3 by mismatch")

    monkeypatch.setattr(orchestrator.train, "run", stopped)
    assert main(["train", "examples/tinycoder.yaml"]) == 3
    assert capsys.readouterr().err == "sdpo: stopped after step 3 by mismatch\n"


def test_what_a_batch_says_of_its_signal_and_its_groups() -> None:
    """Responses of 9 and 16, 10 and 17, and 11 and 18 tokens; the second of each group carries no teacher's signal."""
    groups = [group(index, [True, False]) for index in range(3)]
    passed = Verdict(reward=1.0, success=True, kind="passed")
    for attempts in (groups[0].attempts, groups[1].attempts[:1]):
        for attempt in attempts:
            attempt.verdict = passed
    groups[1].attempts[0].advantage, groups[1].attempts[1].advantage = 0.5, -0.5
    found = batch_metrics(groups, advantage_is_signal=False)
    assert found["signal/samples_fraction"] == 0.5
    assert found["signal/tokens_fraction"] == pytest.approx(30 / 81)
    mixed = batch_metrics(groups, advantage_is_signal=True)
    assert mixed["signal/samples_fraction"] == pytest.approx(4 / 6)
    assert mixed["signal/tokens_fraction"] == pytest.approx(47 / 81)
    assert [found[f"groups/{n}"] for n in ("success_rate", "all_passed_fraction", "none_passed_fraction")] == (
        pytest.approx([0.5, 1 / 3, 1 / 3])
    )
    assert found["rollout/pass_rate_error"] == pytest.approx(0.5 / 3**0.5)
    alone = batch_metrics(groups[1:2], advantage_is_signal=False)
    assert alone["rollout/pass_rate_error"] == pytest.approx(0.5 / 2**0.5)
    assert found["rollout/feedback_chars"] == pytest.approx(len("no") * 3 / 6)
