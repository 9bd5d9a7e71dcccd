"""A real S3 server (moto's) in a process of its own, which can be told to fail; `python -m tests.s3_server PORT`.

Beside S3 it answers /_fail?method=PUT&part=TEXT&after=N: of the requests of that method whose path holds TEXT, all
after the first N are cut off in the middle of their body, until /_heal; and /_log, the requests so far, one a line.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlencode
from urllib.request import urlopen

from tests.ray_head import free_ports

BUCKET = "bucket"


class S3:
    """The server as a test sees it."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def fail(self, method: str, part: str, after: int = 0) -> None:
        """Cut off the requests of `method` whose path holds `part`, but for the first `after`."""
        self._ask("_fail?" + urlencode({"method": method, "part": part, "after": after}))

    def heal(self) -> None:
        """Fail no more."""
        self._ask("_heal")

    def log(self) -> list[str]:
        """ "METHOD path" of every request so far."""
        return self._ask("_log").splitlines()

    def _ask(self, path: str) -> str:
        with urlopen(f"{self.endpoint}/{path}", timeout=30) as answer:
            return str(answer.read().decode())


@contextmanager
def s3_server() -> Iterator[S3]:
    """A server with one bucket, which is empty."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.s3_server", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        server, deadline_s = S3(port), time.monotonic() + 120
        while True:
            try:
                server.log()
                break
            except OSError:
                assert process.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline_s, "the S3 server did not come up"
                time.sleep(0.1)
        import_module("s3fs").S3FileSystem.clear_instance_cache()  # they remember the server of another test
        yield server
    finally:
        process.kill()
        process.wait(10)


class Faulty:
    """A WSGI application around another."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app, self._lock = app, threading.Lock()
        self._rule: tuple[str, str, int] | None = None
        self._log: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
        if path in ("/_fail", "/_heal", "/_log"):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [self._control(path, query).encode()]
        with self._lock:
            self._log.append(f"{environ['REQUEST_METHOD']} {path}")
            cut = self._is_cut(environ["REQUEST_METHOD"], path)
        if cut:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        return self._app(environ, start_response)

    def _control(self, path: str, query: str) -> str:
        with self._lock:
            if path == "/_log":
                return "\n".join(self._log)
            values = {key: found[0] for key, found in parse_qs(query).items()}
            self._rule = (values["method"], values["part"], int(values["after"])) if path == "/_fail" else None
            return ""

    def _is_cut(self, method: str, path: str) -> bool:
        if self._rule is None or method != self._rule[0] or self._rule[1] not in path:
            return False
        left = self._rule[2]
        self._rule = (*self._rule[:2], max(0, left - 1))
        return left == 0


def main(port: int) -> None:
    """Serve until the process is killed."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")
    app = Faulty(DomainDispatcherApplication(create_backend_app))

    def make_bucket() -> None:
        client = import_module("boto3").client("s3", endpoint_url=f"http://127.0.0.1:{port}")
        client.create_bucket(Bucket=BUCKET)

    threading.Thread(target=make_bucket, daemon=True).start()
    run_simple("127.0.0.1", port, app, threaded=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
