"""Judge the answers of the Berkeley Function Calling Leaderboard, and single changes of them, by `tool_matching`.

    pip download --no-deps bfcl-eval==2026.3.23 && unzip -q bfcl_eval-*.whl -d bfcl
    python -m benchmarks.bfcl_gold bfcl OUT.json

Every record with a first turn only is read with the adapter `bfcl`. Its answer, and each other accepted value of an
argument, must be right; each single change must be wrong (`benchmarks.bfcl_changes`). The package's own checker judges
the same calls of all records for Python.
"""

import argparse
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks.bfcl_changes import alternatives, changes, gold
from env_workers.adapters.bfcl import bfcl
from env_workers.environment import Reply, check_task
from env_workers.tools.environments import ToolMatchingEnvironment
from sdpo.records import read_file
from sdpo.types import Task

PYTHON = ("simple_python", "multiple", "parallel", "parallel_multiple")
PYTHON += ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
OTHER = ("simple_java", "simple_javascript", "irrelevance", "live_irrelevance", "live_relevance")
Calls = Sequence[Mapping[str, Any]]
Checker = Callable[[Mapping[str, Any], Calls], bool]


def main() -> None:
    """Measure, write OUT.json, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("package", type=Path, help="the folder into which the package was unzipped")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    figures = {}
    for category in (*PYTHON, *OTHER):
        file = arguments.package / "bfcl_eval" / "data" / f"BFCL_v4_{category}.json"
        figures[category] = measure(file, official(arguments.package, category) if category in PYTHON else None)
        print(category, json.dumps(figures[category]), flush=True)
    total: Counter[str] = Counter()
    for counts in figures.values():
        total.update({key: value for key, value in counts.items() if isinstance(value, int)})
    result = {"what": "benchmarks/bfcl_gold.py on bfcl-eval 2026.3.23", "total": dict(total), "categories": figures}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print("total", json.dumps(total))


def measure(file: Path, checker: Checker | None) -> dict[str, Any]:
    """Return the figures of one category."""
    records = {record["id"]: record for _, record in read_file(str(file))}
    answers_file = file.parent / "possible_answer" / file.name
    answers = {a["id"]: a["ground_truth"] for _, a in read_file(str(answers_file))} if answers_file.exists() else {}
    tasks = {task.id: task for task in bfcl(str(file), "train", {"unsupported": "skip"})}
    found: Counter[str] = Counter(records=len(records), expressed=len(tasks))
    mistaken: set[str] = set()
    differing: set[str] = set()
    for name, task in tasks.items():
        check_task(task)
        record = {**records[name], "ground_truth": answers.get(name, [])}
        right = [gold(record), *alternatives(record)]
        for kind, answers_of_kind in (("right", right), ("wrong", changes(record))):
            for calls in answers_of_kind:
                passed = judged_right(task, calls)
                found[f"{kind}_answers"] += 1
                found[f"{kind}_answers_judged_{kind}"] += passed == (kind == "right")
                if passed != (kind == "right"):
                    mistaken.add(name)
                    print(f"{name}: {kind}, but judged otherwise: {json.dumps(calls)}")
                if checker is not None:
                    agrees = passed == checker(record, calls)
                    found["compared_with_checker"] += 1
                    found["agrees_with_checker"] += agrees
                    differing |= set() if agrees else {name}
        found["gold_answers_judged_right"] += judged_right(task, right[0])
    return {
        **found,
        "not_expressed": sorted(set(records) - set(tasks)),
        "judged_otherwise": sorted(mistaken),
        "differs_from_checker": sorted(differing),
    }


def judged_right(task: Task, calls: Calls) -> bool:
    """Whether `tool_matching` calls these calls a success."""
    text = "\n".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls) or "None of the tools helps."
    environment = ToolMatchingEnvironment.__new__(ToolMatchingEnvironment)
    return environment.judge(task, Reply(text=text)).success is True


def official(package: Path, category: str) -> Checker:
    """Return the package's checker, without the clients of models that its module of model names imports."""
    sys.path.insert(0, str(package))
    models = ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = {"any": SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    sys.modules[models.__name__] = models
    checker = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker").ast_checker
    language = importlib.import_module("bfcl_eval.constants.enums").Language.PYTHON
    sys.path.pop(0)

    def is_valid(record: Mapping[str, Any], calls: Calls) -> bool:
        given = [{call["name"]: call["arguments"]} for call in calls]
        verdict = checker(record["function"], given, record["ground_truth"], language, category, "any")
        return bool(verdict["valid"])

    return is_valid


if __name__ == "__main__":
    main()
