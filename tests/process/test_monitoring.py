"""deploy/monitoring without a server: the boards are made from the catalogue, every alert is proved, nothing drifts."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from sdpo.health import RULES
from sdpo.telemetry.catalogue import CATALOGUE
from sdpo.telemetry.labels import LABELS
from tests.fixtures.monitoring import FOLDER, alerts, boards, expressions, panels, selectors

SUFFIXES = ("_bucket", "_sum", "_count")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, cwd=FOLDER, timeout=60)


def test_boards_are_what_the_script_makes(tmp_path):
    script = (FOLDER / "make_boards.py").read_text().replace('.parent / "boards"', f'.parent / "{tmp_path}"')
    copy = tmp_path / "make.py"
    copy.write_text(script)
    subprocess.run([sys.executable, str(copy)], check=True, cwd=FOLDER, env=_paths(), timeout=60)
    made = {file.name: file.read_text() for file in tmp_path.glob("*.json")}
    assert made == {file.name: file.read_text() for file in FOLDER.glob("boards/*.json")}, "run `make docs`"


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": f"{FOLDER}:{FOLDER.parents[1]}", "PATH": "/usr/bin:/bin"}


def metric_of(name: str):
    """The catalogue's entry of an exported name; a histogram has three."""
    for suffix in SUFFIXES:
        found = CATALOGUE.get(name.removeprefix("ray_").removesuffix(suffix))
        if name.endswith(suffix) and found is not None and found.kind == "histogram":
            return found
    found = CATALOGUE.get(name.removeprefix("ray_"))
    return None if found is None or found.kind == "histogram" else found


def test_every_name_label_and_value_is_in_the_catalogue():
    unknown: list[tuple[str, ...]] = []
    for where, title, expr in expressions():
        for name, matchers in selectors(expr):
            if not name.startswith("ray_sdpo_"):
                continue
            metric = metric_of(name)
            for label, sign, value in MATCHER.findall(matchers):
                known = metric is not None and label in ("run", "actor", *metric.labels)
                if not known or (label in LABELS and sign == "=" and value not in LABELS[label]):
                    unknown.append((where, title, name, label, value))
            unknown += [] if metric else [(where, title, name)]
    assert unknown == []


def test_what_is_measured_is_shown():
    shown = {m.name for _, _, expr in expressions() for name, _ in selectors(expr) if (m := metric_of(name))}
    assert sorted(set(CATALOGUE) - shown) == []


def test_every_expression_is_promql(tmp_path):
    rules = [{"record": f"probe:{i}", "expr": expr} for i, (_, _, expr) in enumerate(expressions())]
    (tmp_path / "probe.yml").write_text(yaml.safe_dump({"groups": [{"name": "probe", "rules": rules}]}))
    checked = promtool("check", "rules", tmp_path / "probe.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ["run", "actors", "sandboxes", "cluster"])
def test_a_board_is_whole(name):
    board = boards()[name]
    assert board["uid"] == f"sdpo-{name}"
    assert board["schemaVersion"] >= 39, "Grafana 11"
    variables = {variable["name"] for variable in board["templating"]["list"]}
    text = "".join(target["expr"] for panel in panels(board) for target in panel["targets"])
    assert variables - {"datasource"} == set(re.findall(r"\$(run|actor|instance)\b", text))
    assert [n for n, count in Counter(p["id"] for p in board["panels"]).items() if count > 1] == []
    taken = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(taken.values()) == 1, "panels overlap"
    assert max(x for x, _ in taken) < 24
    for panel in panels(board):
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_prometheus_takes_its_config():
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_fires_when_it_should_and_not_beside():
    proved = promtool("test", "rules", "rules_test.yml")
    assert proved.returncode == 0, proved.stdout + proved.stderr
    cases = [
        case
        for test in yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in alerts()}


def test_every_alarm_of_a_run_is_an_alert():
    watched = [
        value.split("|")
        for rule in alerts()
        for name, _, value in MATCHER.findall(str(rule["expr"]))
        if name == "alarm"
    ]
    assert sorted(name for names in watched for name in names) == sorted(RULES)


def test_a_rule_that_is_broken_fails_its_test(tmp_path):
    """The tests above see a threshold that moved."""
    for file in ("rules.yml", "rules_test.yml"):
        (tmp_path / file).write_text((FOLDER / file).read_text().replace("> 900", "> 9000"))
    assert promtool("test", "rules", tmp_path / "rules_test.yml").returncode != 0


def test_every_alert_and_board_is_explained():
    page = (FOLDER.parents[1] / "docs" / "monitoring.md").read_text()
    assert [rule["alert"] for rule in alerts() if f"`{rule['alert']}`" not in page] == []
    assert [name for name in boards() if f"`{name}.json`" not in page] == []
