"""Make docs/pictures/dashboard.png: Ray's dashboard in the middle of a run of the demo.

    python -m docs.make_dashboard_picture

Starts a Ray of its own with its dashboard, trains on it, and takes the picture when a few steps are done. Needs
chromium and chromium-driver, and two minutes.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docs.headless import open_chromium
from tests.fixtures.ray_head import free_ports

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "pictures" / "dashboard.png"
WIDTH_PX, HEIGHT_PX = 1500, 1250
STEPS_BEFORE, PATIENCE_S = 3, 300.0
ENV = {**os.environ, "RAY_AUTH_MODE": "disabled"}


def main() -> None:
    """Take the picture. Raises `SystemExit` if the run does not get far enough."""
    with tempfile.TemporaryDirectory(prefix="sdpo-") as folder, head(Path(folder)) as (address, dashboard):
        overrides = [f"dir={folder}", "name=demo", "placement.env.max_workers=2", "placement.env.min_workers=2"]
        command = [sys.executable, "-m", "orchestrator", "train", "examples/tinycoder.yaml", *overrides]
        with ended(subprocess.Popen(command, cwd=ROOT, env=ENV | {"RAY_ADDRESS": address})) as run:
            wait_for_steps(Path(folder) / "demo" / "metrics.jsonl", run)
            shoot(f"http://{dashboard}/#/actors")


@contextmanager
def head(folder: Path) -> Iterator[tuple[str, str]]:
    """A Ray head in the foreground; yields its address and the dashboard's."""
    gcs, dashboard = free_ports(2)
    command = ["ray", "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    command += ["--num-cpus=4", f"--temp-dir={folder}/ray", "--resources", '{"env_slot": 4}']
    with ended(subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL)) as process:
        wait_for_port(dashboard, process)
        yield f"127.0.0.1:{gcs}", f"127.0.0.1:{dashboard}"


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """Ends the process at the end, first politely."""
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(number)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    continue


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise SystemExit("Ray's dashboard did not come up")


def wait_for_steps(metrics: Path, run: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and run.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) > STEPS_BEFORE:
            return
        time.sleep(0.5)
    raise SystemExit("the run did not get far enough for a picture")


def shoot(url: str) -> None:
    driver = open_chromium(WIDTH_PX, HEIGHT_PX)
    try:
        driver.get(url)
        deadline = time.monotonic() + 60
        while "learner-rank0" not in driver.page_source and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(3.0)  # the figures of the processes come a little later than their names
        TARGET.write_bytes(driver.get_screenshot_as_png())
    finally:
        driver.quit()
    print(f"{TARGET}: {TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
