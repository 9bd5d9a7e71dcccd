"""The env worker's side of the helper process: started at the first request, replaced after an overrun."""

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from sdpo.errors import InfrastructureError

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 120.0
MAX_REQUESTS = 5000
MAX_ANSWER_BYTES = 4 * 2**20
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from env_workers.verifier.child import serve; "
    "serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))"
)
_ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Overrun(Exception):
    """The request itself was too much: `why` is time, memory, depth, evaluation, or crash."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Raised(Exception):
    """The library raised on the request; the message is the exception's type."""


class Verifier:
    """Answers requests by `answer` of the module `module_name`, one at a time; any number of threads may ask.

    `canary` is a request that always has an answer: it tells a request that ends the helper from a helper that is
    broken. `cpu_s` and `memory_mib` bound one request.
    """

    def __init__(
        self, module_name: str, canary: Mapping[str, Any], *, cpu_s: float = 5.0, memory_mib: int = 1024
    ) -> None:
        self._arguments = [module_name, str(memory_mib * 2**20), str(cpu_s)]
        self._canary = canary
        self._lock = threading.Lock()
        self._helper: _Helper | None = None

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Return the module's answer.

        Raises Overrun or Raised, which are the request's fault, or InfrastructureError.
        """
        with self._lock:
            try:
                return self._ask(request)
            except _Died:
                pass
            try:
                return self._ask(request)
            except _Died as error:
                death = error
            try:
                self._ask(self._canary)
            except (_Died, Overrun, Raised):
                raise InfrastructureError(f"the verifier {death} at every request") from None
            raise Overrun("crash")

    def close(self) -> None:
        """End the helper."""
        with self._lock:
            self._drop()

    def _ask(self, request: Mapping[str, Any]) -> Any:
        if self._helper is None or self._helper.num_requests >= MAX_REQUESTS:
            self._drop()
            self._helper = _Helper(self._arguments)
        try:
            answer = self._helper.ask(request)
        except BaseException:
            self._drop()
            raise
        if "overrun" in answer:
            self._drop()
            raise Overrun(answer["overrun"])
        if "raised" in answer:
            raise Raised(answer["raised"])
        return answer["result"]

    def _drop(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.close()


_shared: dict[str, Verifier] = {}


def shared_verifier(module_name: str, canary: Mapping[str, Any]) -> Verifier:
    """Return this process's helper for `module_name`, with which tasks are checked before a run."""
    return _shared.setdefault(module_name, Verifier(module_name, canary))


def close_shared_verifiers() -> None:
    """End the helpers of `shared_verifier`; a later request starts one again."""
    for verifier in _shared.values():
        verifier.close()


class _Died(Exception):
    pass


class _Helper:
    def __init__(self, arguments: list[str]) -> None:
        self.num_requests = 0
        self._link, other_end = Pipe()
        paths = json.dumps([os.path.abspath(path) for path in sys.path])
        with other_end:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-B", "-c", _BOOT, paths, str(other_end.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(other_end.fileno(),),
                env=_ENVIRONMENT,
                cwd="/",
            )
        self.close = weakref.finalize(self, _end, self._process, self._link)
        try:
            answer = self._read(START_TIMEOUT_S)
        except (_Died, Overrun) as error:
            self.close()
            raise InfrastructureError(f"the verifier {error} before it was ready") from None
        if "ready" not in answer:
            self.close()
            raise InfrastructureError(f"the verifier cannot start: {answer.get('broken')}")

    def ask(self, request: Mapping[str, Any]) -> Any:
        self.num_requests += 1
        try:
            self._link.send_bytes(json.dumps(request).encode())
        except OSError:
            raise self._error_of_death() from None
        return self._read(ANSWER_TIMEOUT_S)

    def _read(self, timeout_s: float) -> Any:
        try:
            if not self._link.poll(timeout_s):
                raise InfrastructureError(f"the verifier did not answer within {timeout_s:g} s")
            return json.loads(self._link.recv_bytes(MAX_ANSWER_BYTES))
        except (EOFError, OSError):
            raise self._error_of_death() from None

    def _error_of_death(self) -> Exception:
        self._process.kill()
        code = self._process.wait(10)
        return Overrun("time") if code == -signal.SIGPROF else _Died(f"ended with status {code}")


def _end(process: "subprocess.Popen[bytes]", link: "Connection[Any, Any]") -> None:
    process.kill()
    process.wait(10)
    link.close()
