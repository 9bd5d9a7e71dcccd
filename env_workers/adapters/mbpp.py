"""MBPP, full and sanitized: short problems, tested by a list of asserts.

A record: `task_id`, `text` (full) or `prompt` (sanitized), `code` (a solution), `test_list`, and `challenge_test_list`
and `test_setup_code` (full) or `test_imports` (sanitized). The solution is read, never run: it says which of the names
in the asserts are the program's functions, and it is not shown to the model.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.assert_tasks import carried
from env_workers.adapters.code_prompts import question, with_asserts
from env_workers.adapters.fields import Options, bad_field, field, list_field, text_field
from env_workers.adapters.records import read_records
from sdpo.errors import TaskFileError
from sdpo.types import Task


def mbpp(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a record, judged by environment `code`; training and evaluation use the same tests.

    Options: `first_id`, `last_id`: only these records, both included; the data set's own parts are 1-10 (examples of
    prompts), 11-510 (test), 511-600 (validation), 601-974 (training). `examples` (default 1): how many of its asserts
    the problem shows, so that the function's name is known. `challenge` (default true): also judge by the challenge
    tests. `prompt_time_limit_s` (default 1): the limit of one test that the prompt names. `packages`: a list of what
    the prompt says that programs may import beside the standard library (env.sandbox.python_path). `unsupported`: what
    becomes of a task whose tests no proxy carries (docs/assert-tests.md): refuse (default); skip, and the count is
    logged; open, which needs `env.allow_open_asserts`.
    """
    own = ("first_id", "last_id", "examples", "challenge", "prompt_time_limit_s", "packages", "unsupported")
    chosen = Options("mbpp", options, own)
    first, last = chosen.integer("first_id", 0), chosen.integer("last_id", 2**31)
    records = (
        (where, record) for where, record in read_records(path, options) if first <= _number(where, record) <= last
    )
    return carried(path, (_task(where, record, chosen) for where, record in records), chosen)


def _number(where: str, record: Mapping[str, Any]) -> int:
    number = field(where, record, "task_id")
    if type(number) is not int:
        raise bad_field(where, "task_id", number, "an integer")
    return number


def _task(where: str, record: Mapping[str, Any], chosen: Options) -> Task:
    shown = chosen.integer("examples", 1, at_least=1)
    asserts = _sources(where, record, "test_list")
    challenge = _sources(where, record, "challenge_test_list") if chosen.flag("challenge", True) else []
    setup = [*_sources(where, record, "test_imports"), str(record.get("test_setup_code") or "").replace("\r\n", "\n")]
    functions, imports = _of_solution(where, text_field(where, record, "code"), asserts + challenge, "\n".join(setup))
    text = text_field(where, record, "prompt" if "prompt" in record else "text")
    test = {
        "kind": "asserts",
        "functions": functions,
        "setup": "\n".join([*imports, *setup]).strip(),
        "asserts": asserts + challenge,
    }
    return Task(
        id=f"mbpp-{_number(where, record)}",
        messages=question(
            with_asserts(text, asserts[:shown]),
            chosen.integer("prompt_time_limit_s", 1, at_least=1),
            chosen.texts("packages"),
        ),
        environment="code",
        payload={"tests": [test]},
    )


def _sources(where: str, record: Mapping[str, Any], key: str) -> list[str]:
    sources = list_field(where, record, key) if record.get(key) is not None else []
    if not all(isinstance(source, str) for source in sources) or (key == "test_list" and not sources):
        raise bad_field(where, key, record.get(key), "a list of asserts as text")
    return [source.replace("\r\n", "\n") for source in sources]


def _of_solution(where: str, code: str, asserts: Sequence[str], setup: str) -> tuple[list[str], list[str]]:
    """Return the solution's functions that the asserts call, and its imports that the asserts use without importing."""
    try:
        solution = ast.parse(code.replace("\r\n", "\n")).body
        tests = [node for source in [*asserts, setup] for node in ast.walk(ast.parse(source.strip()))]
    except SyntaxError as error:
        raise TaskFileError(f"{where}: code or test_list is not Python: {error.msg}") from None
    called = [node.func.id for node in tests if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    used = {node.id for node in tests if isinstance(node, ast.Name)}
    defined = {node.name for node in solution if isinstance(node, ast.FunctionDef)}
    functions = list(dict.fromkeys(name for name in called if name in defined))
    if not functions:
        raise bad_field(where, "test_list", asserts[0], "asserts that call a function of `code`")
    imports = [
        ast.unparse(type(node)(**{**vars(node), "names": [alias]}))
        for node in solution
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (alias.asname or alias.name) in used
    ]
    return functions, imports
