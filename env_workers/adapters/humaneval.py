"""HumanEval: functions to complete, tested by `check(candidate)`.

A record: `task_id`, `prompt` (imports, helpers, and the function's head with its docstring), `entry_point`, `test`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.assert_tasks import carried
from env_workers.adapters.code_prompts import completion, helpers_of, question
from env_workers.adapters.fields import Options, bad_field, text_field
from env_workers.adapters.records import read_records
from sdpo.types import Task


def humaneval(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a record, judged by environment `code`; training and evaluation use the same tests.

    Options: `prompt_time_limit_s` (default 1): the limit of one test that the prompt names. `packages`: a list of what
    the prompt says that programs may import beside the standard library (env.sandbox.python_path). `unsupported`: what
    becomes of a task whose tests no proxy carries (docs/assert-tests.md): refuse (default); skip, and the count is
    logged; open, which needs `env.allow_open_asserts`.
    """
    chosen = Options("humaneval", options, ("prompt_time_limit_s", "packages", "unsupported"))
    shown_limit_s = chosen.integer("prompt_time_limit_s", 1, at_least=1)
    packages = chosen.texts("packages")
    tasks = (_task(where, record, shown_limit_s, packages) for where, record in read_records(path, options))
    return carried(path, tasks, chosen)


def _task(where: str, record: Mapping[str, Any], shown_limit_s: int, packages: Sequence[str]) -> Task:
    prompt, entry_point = text_field(where, record, "prompt"), text_field(where, record, "entry_point")
    try:
        helpers = helpers_of(prompt, entry_point)
    except SyntaxError as error:
        raise bad_field(where, "prompt", prompt, f"Python up to a function's head ({error.msg})") from None
    test = {"kind": "asserts", "entry_point": entry_point, "setup": helpers, "check": text_field(where, record, "test")}
    return Task(
        id=text_field(where, record, "task_id"),
        messages=question(completion(prompt), shown_limit_s, packages),
        environment="code",
        payload={"tests": [test]},
    )
