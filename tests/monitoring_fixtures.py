"""The boards and rules of deploy/monitoring as tests look at them: their expressions, and the selectors in these."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "deploy" / "monitoring"
SELECTOR = re.compile(r"\b((?:ray|autoscaler)_\w+|up)\b(\{[^}]*\})?")
"""Every name in our expressions is one of ours, of Ray's, of its autoscaler's, or Prometheus's own `up`."""


def boards() -> dict[str, dict[str, Any]]:
    """Every board by the name of its file."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("boards/*.json"))}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    """Every alert of rules.yml."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def plain(expr: str) -> str:
    """An expression of a board as Prometheus takes it: every run, every actor, every node."""
    return re.sub(r"\$(run|actor|instance)\b", ".+", expr).replace("$__rate_interval", "1m")


def expressions() -> list[tuple[str, str, str]]:
    """(board or "rules", panel or alert, expression) of everything."""
    found = [
        (name, panel["title"], plain(target["expr"]))
        for name, board in boards().items()
        for panel in panels(board)
        for target in panel["targets"]
    ]
    return found + [("rules", rule["alert"], rule["expr"]) for rule in alerts()]


def selectors(expr: str) -> list[tuple[str, str]]:
    """(metric, matchers in braces or nothing) of each selector in an expression."""
    return SELECTOR.findall(expr)
