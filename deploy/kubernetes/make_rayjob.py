"""Write rayjob.yaml: one run on a cluster of its own, as raycluster.yaml describes it.

python deploy/kubernetes/make_rayjob.py
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
HEAD = """\
# A run on a cluster of its own, which starts and ends with it. Made from raycluster.yaml by make_rayjob.py.
# A failed or evicted run is started again on a fresh cluster and resumes at its last checkpoint, in the same directory.
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: sdpo-tool-use
  labels: {app.kubernetes.io/name: sdpo}
spec:
  entrypoint: >-
    sdpo train /runs/examples/tool_use/qwen3_8b.yaml dir=/runs/results model.path=/runs/models/Qwen3-8B
    tasks.train=/runs/data/train.json tasks.heldout=/runs/data/eval.json
    'env.sandbox={kind: bubblewrap}' placement.env.env_slots=1
  runtimeEnvYAML: |
    env_vars: {RAY_JOB_STOP_WAIT_TIME_S: "600"}
  backoffLimit: 3
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 600
"""


def render() -> str:
    """Return the text of rayjob.yaml."""
    cluster = (HERE / "raycluster.yaml").read_text()
    job = (HERE / "rayjob-bucket.yaml").read_text()
    submitter = job[job.index("  submitterPodTemplate:") :]
    spec = cluster[cluster.index("\nspec:\n") + len("\nspec:\n") :]
    return HEAD + submitter + "  rayClusterSpec:\n" + "".join(f"  {line}\n" for line in spec.splitlines())


if __name__ == "__main__":
    (HERE / "rayjob.yaml").write_text(render())
