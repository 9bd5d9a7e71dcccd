"""A Docker engine of a test's own, which it may stop and start: own data, own socket, gVisor among its runtimes."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import IO

from sdpo.errors import InfrastructureError

ANSWER_S = 60.0
STOP_S = 30.0


class PrivateEngine:
    """Needs root, dockerd and runsc. `folder` is to be short: a socket's path has at most 107 bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        config = self.folder / "daemon.json"
        config.write_text(
            json.dumps({"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=none"]}}})
        )
        options = ["--bridge=none", "--iptables=false", "--ip6tables=false", f"--config-file={config}"]
        for name in ("data-root", "exec-root", "pidfile"):
            options.append(f"--{name}={self.folder / name}")
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(["dockerd", "-H", self.address, *options], stdout=log, stderr=log)
        deadline = time.monotonic() + ANSWER_S
        while self.docker("version").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise InfrastructureError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """Stops it and with it every container."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_S)
        self._process = None

    def remove(self) -> None:
        """Stops it and deletes all that it had."""
        self.stop()
        shutil.rmtree(self.folder)

    def load(self, image: str) -> None:
        """Copies an image from the shared engine."""
        saving = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
        self.docker("load", "--quiet", stdin=saving.stdout).check_returncode()
        assert saving.wait(10) == 0

    def docker(self, *arguments: str, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
        """The docker command against this engine."""
        environment = {**os.environ, "DOCKER_HOST": self.address}
        return subprocess.run(
            ["docker", *arguments], stdin=stdin, capture_output=True, text=True, timeout=120, env=environment
        )


def obstacle() -> str | None:
    """What keeps this machine from running one, None when nothing does."""
    if os.geteuid() != 0:
        return "an engine of its own needs root"
    missing = [name for name in ("dockerd", "runsc") if shutil.which(name) is None]
    return f"an engine of its own needs {' and '.join(missing)}" if missing else None
