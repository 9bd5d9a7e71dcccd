"""deploy/slurm/run.sbatch on a real Slurm of two nodes: Ray on both, a job, SIGTERM, the queue, and on to the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy/slurm/run.sbatch"
CLUSTERS = Path(__file__).parent

# The first time it works until it is told to stop, the second time it asks Ray what there is.
ENTRYPOINT = """#!{python}
import os, pathlib, signal, sys, time
marks = pathlib.Path({marks!r})
def mark(text):
    with marks.open("a") as file: file.write(text + "\\n")
def stop(*_):
    mark("told to stop")
    sys.exit(130)
again = marks.exists()
mark("working in " + os.getcwd())
if not again:
    signal.signal(signal.SIGTERM, stop)
    time.sleep(600)
import ray
ray.init(log_to_driver=False)
have = ray.cluster_resources()
mark("nodes %d, CPU %g, env_slot %g" % (len(ray.nodes()), have["CPU"], have["env_slot"]))
"""


@pytest.mark.longest
@pytest.mark.timeout(1500)
def test_a_job_stops_on_sigterm_goes_back_into_the_queue_and_goes_on(tmp_path):
    entrypoint = tmp_path / "entrypoint"
    entrypoint.write_text(ENTRYPOINT.format(python=sys.executable, marks=str(tmp_path / "marks")))
    entrypoint.chmod(0o755)
    namespaces = ("--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
    session = (sys.executable, CLUSTERS / "slurm_session.py", SCRIPT, entrypoint)
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["unshare", *namespaces, "bash", CLUSTERS / "slurm.sh", tmp_path, *session],
        capture_output=True,
        text=True,
        timeout=1400,
        env={"PATH": path, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    said = json.loads(done.stdout.splitlines()[-1])
    here = f"working in {tmp_path}"
    assert said["marks"] == [here, "told to stop", here, "nodes 2, CPU 8, env_slot 4"], said["log"]
    assert (said["state"], said["exit"]) == ("COMPLETED", "0:0"), said["log"]
    assert said["token_mode"] == "0o600"
    assert said["between"] == {"ray": [], "files": []}
    print(said["seconds"])
