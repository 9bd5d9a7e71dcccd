"""The helper's loop: a JSON message in, a JSON message out. `env_workers.verifier.host` starts it; it seals itself.

An answer is {"result": ...}, or {"overrun": memory | depth | evaluation}, or {"raised": the exception's type}. A
request that takes too much processor time ends the process, and so does the end of its socket.
"""

import contextlib
import importlib
import json
from multiprocessing.connection import Connection
from typing import Any

from env_workers.verifier.seal import GUARD, Evaluated, processor_time, seal


def serve(descriptor: int, module_name: str, memory_bytes: int, cpu_s: float) -> None:
    """Serve `answer` of the module until the other end of the socket closes; `warm_up` runs once, before the seal."""
    link: Connection[Any, Any] = Connection(descriptor)

    def send(answer: Any) -> None:
        link.send_bytes(json.dumps(answer).encode())

    try:
        module = importlib.import_module(module_name)
        module.warm_up()
        seal(memory_bytes)
    except Exception as error:
        send({"broken": f"{type(error).__name__}: {error}"})
        return
    send({"ready": True})
    with contextlib.suppress(EOFError):
        while True:
            request = json.loads(link.recv_bytes())
            with processor_time(cpu_s):
                answer = _answer(module, request)
            send(answer)


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
