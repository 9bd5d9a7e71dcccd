"""Writes the Grafana boards, `boards/*.json`, from the panels beside it. `python deploy/monitoring/make_boards.py`; a
test keeps them current. The form is that of Grafana 11 and later."""

import json
from pathlib import Path
from typing import Any

from board_of_cluster import CLUSTER
from boards_of_runs import ACTORS, RUN, SANDBOXES
from panels import Board, Panel, Query

TARGET = Path(__file__).resolve().parent / "boards"
BOARDS = (RUN, ACTORS, SANDBOXES, CLUSTER)
SCHEMA_VERSION = 39
COLUMNS, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
LOOKUPS = {
    "run": ("Run", "label_values(ray_sdpo_run_active, run)"),
    "actor": ("Actor", 'label_values(ray_sdpo_actor_seconds_total{run=~"$run"}, actor)'),
    "instance": ("Node", "label_values(ray_node_cpu_count, instance)"),
}
KINDS = {"lines": "timeseries", "stack": "timeseries", "number": "stat", "bars": "bargauge", "heatmap": "heatmap"}


def render(board: Board) -> str:
    """Return the text of a board's file."""
    others = [{"title": b.title, "uid": f"sdpo-{b.file}"} for b in BOARDS if b is not board]
    whole = {
        "uid": f"sdpo-{board.file}",
        "title": board.title,
        "description": board.what,
        "tags": ["sdpo"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "annotations": {"list": _annotations(board)},
        "links": [_link(**other) for other in others],
        "templating": {"list": [_datasource(), *map(_variable, board.variables)]},
        "panels": _panels(board),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _link(title: str, uid: str) -> dict[str, Any]:
    return {
        "title": title,
        "type": "link",
        "url": f"/d/{uid}",
        "icon": "dashboard",
        "tags": [],
        "tooltip": "",
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }


def _annotations(board: Board) -> list[dict[str, Any]]:
    """Mark where an incarnation of a run began, so that every panel shows a restart."""
    if "run" not in board.variables:
        return []
    return [
        {
            "name": "Start of an incarnation",
            "enable": True,
            "iconColor": "blue",
            "datasource": SOURCE,
            "expr": 'ray_sdpo_run_start_timestamp_seconds{run=~"$run"} * 1000',
            "useValueForTime": True,
            "titleFormat": "{{run}}",
        }
    ]


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def _variable(name: str) -> dict[str, Any]:
    label, lookup = LOOKUPS[name]
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": lookup,
        "query": {"query": lookup, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 7,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels(board: Board) -> list[dict[str, Any]]:
    """Place rows from the top down; number panels share one line, others are three in a line."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in board.rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        panels.append(
            {
                "type": "row",
                "title": row.title,
                "id": len(panels) + 1,
                "gridPos": place,
                "collapsed": False,
                "panels": [],
            }
        )
        top += 1
        small = all(panel.shape == "number" for panel in row.panels)
        columns = len(row.panels) if small else 2 if len(row.panels) in (2, 4) else 3
        height, width = (4 if small else HEIGHT), COLUMNS // columns
        for index, panel in enumerate(row.panels):
            place = {"h": height, "w": width, "x": index % columns * width, "y": top + index // columns * height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
        top += -(-len(row.panels) // columns) * height
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0} if panel.top is not None else {"unit": panel.unit}
    if panel.top is not None:
        defaults["max"] = panel.top
    options, custom = _looks(panel)
    return {
        "type": KINDS[panel.shape],
        "title": panel.title,
        "description": panel.what,
        "datasource": SOURCE,
        "targets": [_target(query, chr(ord("A") + i), panel) for i, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": {**defaults, **({"custom": custom} if custom else {})}, "overrides": []},
        "options": options,
    }


def _looks(panel: Panel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return Grafana's options and custom field settings of a kind of panel."""
    newest = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.shape == "number":
        return {"reduceOptions": newest, "colorMode": "value", "graphMode": "area", "textMode": "auto"}, {}
    if panel.shape == "bars":
        return {"reduceOptions": newest, "orientation": "horizontal", "displayMode": "basic"}, {}
    if panel.shape == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"mode": "scheme", "scheme": "Blues"}}, {}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom: dict[str, Any] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 10,
        "showPoints": "auto",
        "spanNulls": 60000,
    }
    if panel.shape == "stack":
        custom |= {"fillOpacity": 60, "stacking": {"mode": "normal", "group": "A"}}
    return options, custom


def _target(query: Query, ref: str, panel: Panel) -> dict[str, Any]:
    return {
        "refId": ref,
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "editorMode": "code",
        "range": panel.shape not in ("number", "bars"),
        "instant": panel.shape in ("number", "bars"),
        "format": "heatmap" if panel.shape == "heatmap" else "time_series",
    }


if __name__ == "__main__":
    for made in BOARDS:
        (TARGET / f"{made.file}.json").write_text(render(made), encoding="utf-8")
