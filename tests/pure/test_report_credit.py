"""The report's credit map: which attempts are in it, and that nothing recorded gets out of its data element."""

import base64
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.commands.report.credit import credit_section
from orchestrator.commands.report.credit_choice import most_informative, steps_by_importance
from orchestrator.commands.report.data import Run, make_report
from orchestrator.run_dir.run_view import RunView
from tests.fixtures.sample import sample_of, verdict_of, write_run

HOSTILE = "</script><script>alert(1)</script><!-- \u2028\u2029 \udc80 \x00 世 &lt;"


def runs_of(*folders: Path) -> list[Run]:
    return make_report([RunView(folder) for folder in folders]).runs


def payload_of(html: str) -> Any:
    (data,) = re.findall(r'<script type="application/json" class="credit-data">(.*?)</script>', html, re.DOTALL)
    return json.loads(data)


def numbers(packed: str) -> list[int]:
    return [int(n) for n in np.frombuffer(base64.b64decode(packed), "<i2")]


def test_numbers_and_texts_arrive_and_the_environments_tokens_have_none(tmp_path: Path) -> None:
    tokens, credit = ("def", " f", "[user]", "<|im_end|>"), (-9.0, 0.5, None, -40.0)
    run = write_run(tmp_path / "run", {3: [sample_of(tokens, credit), sample_of(sample=1)]})
    section = credit_section(runs_of(run))
    payload = payload_of(section.html)
    (step,) = payload["runs"][0]["steps"]
    first, second = step["attempts"]
    assert (step["step"], first["tokens"]) == (3, list(tokens))
    assert numbers(first["p"]) == [-1000, -1000, payload["notANumber"], -1000]
    assert numbers(first["teacher"]["q"]) == [-10000, -500, payload["notANumber"], -32767], "clipped at the least"
    texts = payload["runs"][0]["texts"]
    assert first["hindsight"]["prompt"] == second["hindsight"]["prompt"], "every text is there once"
    assert len(texts) == len(set(texts))
    assert texts[first["hindsight"]["demo"][1]] == "return x + x"
    assert "p" not in first["teacher"]
    assert payload["runs"][0]["note"] == "All 2 recorded attempts of step 3 are on this page."


def test_what_was_recorded_stays_inside_its_data_element(tmp_path: Path) -> None:
    hostile = sample_of((HOSTILE,), task=HOSTILE, feedback=HOSTILE, verdict=verdict_of(HOSTILE))
    run = write_run(tmp_path / "run", {1: [hostile]}, [{"name": HOSTILE, "step": 1}])
    html = credit_section(runs_of(run)).html
    assert "alert(1)" not in re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.DOTALL)
    assert html.count("</script>") == 1
    html.encode("ascii")
    (step,) = payload_of(html)["runs"][0]["steps"]
    assert step["attempts"][0]["tokens"] == [HOSTILE]
    assert step["alarms"] == [HOSTILE]


def test_attempts_without_a_teacher_say_why(tmp_path: Path) -> None:
    masked = sample_of()["hindsight"] | {"shown": False, "demo": None}
    samples = [sample_of(teacher=None, hindsight=None), sample_of(teacher=None, hindsight=masked)]
    (step,) = payload_of(credit_section(runs_of(write_run(tmp_path / "run", {1: samples}))).html)["runs"][0]["steps"]
    assert [attempt["why"].split(":")[0] for attempt in step["attempts"]] == [
        "The objective of this run asks no teacher",
        "Masked",
    ]
    assert "-0.500" in step["attempts"][0]["why"]


def test_steps_are_spread_over_the_run() -> None:
    steps = list(range(1, 101))
    assert steps_by_importance(steps, [])[:5] == [1, 100, 50, 25, 75]
    assert steps_by_importance(steps, [20, 500])[:4] == [1, 100, 20, 50]
    assert sorted(steps_by_importance(steps, [20])) == steps
    some = sorted(steps_by_importance(steps, [])[:24])
    assert max(after - before for before, after in pairwise(some)) <= 7, "24 of 100, with gaps of about 4"
    assert steps_by_importance([10, 20, 30], [25, 3])[:3] == [10, 30, 20]
    assert steps_by_importance([7], [7]) == [7]
    assert steps_by_importance([], [7]) == []


def test_every_kind_of_verdict_is_among_the_most_informative() -> None:
    kinds = ["passed"] * 6 + ["wrong_answer"] * 3 + ["timeout"]
    strengths = [0.0, 0.0, 1.0, 0.0, 0.5, 0.0, -0.1, -9.0, -1.0, 0.0]
    samples = [
        sample_of(("x",), (credit,), sample=i, verdict=verdict_of(kind))
        for i, (kind, credit) in enumerate(zip(kinds, strengths, strict=True))
    ]
    assert [s["sample"] for s in most_informative(samples, 3)] == [2, 7, 9]
    assert [s["sample"] for s in most_informative(samples, 5)] == [2, 4, 7, 8, 9]
    assert len(most_informative(samples, 99)) == 10


def test_the_budget_holds_and_the_page_says_what_is_left_out(tmp_path: Path) -> None:
    long = [f" token{i}" for i in range(200)]
    steps = {
        step: [sample_of(long, sample=i, feedback=f"{step} {i} <" * 50) for i in range(8)] for step in range(1, 61)
    }
    run = write_run(tmp_path / "run", steps, [{"name": "length_collapse", "step": 37}])
    empty = len(credit_section(runs_of(write_run(tmp_path / "empty", {}))).html)
    for budget in (60_000, 250_000):
        html = credit_section(runs_of(run), budget).html
        assert len(html) - empty < budget + 1000
        (found,) = payload_of(html)["runs"]
        shown = [step["step"] for step in found["steps"]]
        assert shown == sorted(shown)
        assert {1, 37, 60} <= set(shown)
        assert next(step["alarms"] for step in found["steps"] if step["step"] == 37) == ["length_collapse"]
        assert re.match(r"\d+ of the \d+ attempts recorded at steps 1[-,]", found["note"])
        assert f"sdpo inspect {run} shows all" in found["note"]
    assert len(shown) >= 20, "the larger budget takes more steps, spread over the run"
    one = payload_of(credit_section(runs_of(run, run), 10).html)["runs"]
    assert [[len(step["attempts"]) for step in run["steps"]] for run in one] == [[1], [1]], "one attempt in any case"


@pytest.mark.parametrize(
    ("steps", "note"), [({}, "holds no recorded attempts"), ({1: [{"step": 1}]}, "form=none of recorded samples")]
)
def test_a_run_without_readable_attempts_is_named(tmp_path: Path, steps: Any, note: str) -> None:
    good = write_run(tmp_path / "good", {1: [sample_of()]})
    bad = write_run(tmp_path / "bad", steps)
    runs = payload_of(credit_section(runs_of(bad, good)).html)["runs"]
    assert [(run["name"], len(run["steps"])) for run in runs] == [("bad", 0), ("good", 1)]
    assert note in runs[0]["note"]
