"""The helper's loop: a JSON line in, a JSON line out. Started by `env_workers.verifier.host`; sealed before it serves.

An answer is {"result": ...}, or {"overrun": memory | depth | evaluation}, or {"raised": the exception's type}. A
request that takes too much processor time ends the process, and so does the end of its input.
"""

import importlib
import json
import os
from typing import Any

from env_workers.verifier.seal import GUARD, Evaluated, processor_time, seal


def serve(module_name: str, memory_bytes: int, cpu_s: float) -> None:
    """Serves `answer` of the module until its input ends; `warm_up` of it runs once, before the seal."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    try:
        module = importlib.import_module(module_name)
        module.warm_up()
        seal(memory_bytes)
    except Exception as error:
        _write(answers, {"broken": f"{type(error).__name__}: {error}"})
        return
    _write(answers, {"ready": True})
    for line in requests:
        with processor_time(cpu_s):
            answer = _answer(module, json.loads(line))
        _write(answers, answer)


def _answer(module: Any, request: Any) -> dict[str, Any]:
    GUARD.begin()
    try:
        answer = {"result": module.answer(request)}
    except MemoryError:
        return {"overrun": "memory"}
    except RecursionError:
        return {"overrun": "depth"}
    except Evaluated:
        return {"overrun": "evaluation"}
    except Exception as error:
        answer = {"raised": type(error).__name__}
    return {"overrun": "evaluation"} if GUARD.tripped else answer


def _write(descriptor: int, answer: Any) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]
