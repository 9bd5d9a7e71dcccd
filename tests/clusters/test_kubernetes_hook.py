"""The head's preStop hook of deploy/kubernetes, as it stands in the manifest, on a real Ray head."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.fixtures.ray_head import ray_head

ROOT = Path(__file__).resolve().parents[2]
# Ends 6 s after SIGTERM: Ray by itself would kill it after 3.
JOB = "trap 'sleep 6; echo ended >>{marks}; exit 130' TERM; echo began >>{marks}; while :; do sleep 0.2; done"
SUBMIT = """
import sys
from ray.job_submission import JobSubmissionClient
print(JobSubmissionClient(sys.argv[1]).submit_job(entrypoint=sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_head_that_goes_lets_its_jobs_end_first(tmp_path):
    marks = tmp_path / "marks"
    spec = yaml.safe_load((ROOT / "deploy/kubernetes/raycluster.yaml").read_text())["spec"]
    container = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    _, _, hook = container["lifecycle"]["preStop"]["exec"]["command"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    with ray_head(**variables) as head:
        environment = os.environ | head.client
        submit = [sys.executable, "-c", SUBMIT, head.dashboard, JOB.format(marks=marks)]
        deadline = time.monotonic() + 240
        # Ray refuses jobs for some seconds after its dashboard answers.
        while (done := subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=120)).returncode:
            assert time.monotonic() < deadline, (head.folder / "head.log").read_text()
        while not marks.exists():
            assert time.monotonic() < deadline, (head.folder / "head.log").read_text()
            time.sleep(0.2)
        assert "http://127.0.0.1:8265" in hook
        hook = hook.replace("http://127.0.0.1:8265", head.dashboard)
        subprocess.run([sys.executable, "-c", hook], env=environment, check=True, timeout=240)
        assert marks.read_text().split() == ["began", "ended"]
        assert head.get(f"/api/jobs/{done.stdout.split()[-1]}").json()["status"] == "STOPPED"
