"""deploy/kubernetes against KubeRay's schema, Ray's own reading of it, and what runs and images ask for."""

import gzip
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from deploy.kubernetes.make_rayjob import render
from sdpo import __version__
from sdpo.config.load import load_run_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/kubernetes"
SCHEMA = json.loads(gzip.decompress((ROOT / "tests/data/kuberay/rayjob-spec-v1.json.gz").read_bytes()))
CLUSTER_SCHEMA = SCHEMA["properties"]["rayClusterSpec"]


def read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / name).read_text()))


def closed(schema: Any) -> Any:
    """A schema of Kubernetes as JSON Schema that refuses unknown fields, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        key: {name: closed(value) for name, value in schema[key].items()}
        if key == "properties"
        else closed(schema[key])
        for key in schema
    }
    if "properties" in schema and not {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & schema.keys():
        result["additionalProperties"] = False
    return result


def complaints(instance: Any, schema: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(closed(schema))
    return [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(instance)]


def at(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    for name in path:
        schema = schema["items"] if name == "*" else schema["properties"][name]
    return schema


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml", "rayjob-bucket.yaml"])
def test_manifests_are_what_kuberay_1_7_knows(name):
    manifest = read(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert complaints(manifest["spec"], CLUSTER_SCHEMA if manifest["kind"] == "RayCluster" else SCHEMA) == []


def test_the_check_refuses_what_kubernetes_would_refuse():
    spec = read("raycluster.yaml")["spec"]
    spec["workerGroupSpecs"][0]["minReplica"] = 1
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "eight"
    spec["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    del spec["workerGroupSpecs"][1]["template"]
    said = "\n".join(complaints(spec, CLUSTER_SCHEMA))
    for wrong in (
        "'minReplica' was unexpected",
        "limits.cpu",
        "num-cpus: 0 is not of type",
        "'template' is a required",
    ):
        assert wrong in said


def test_network_policy_and_claim_have_the_fields_of_their_kinds():
    policy = read("networkpolicy.yaml")["spec"]
    rules = at(CLUSTER_SCHEMA, "networkPolicy", "head")
    assert complaints(policy["egress"], at(rules, "egressRules")) == []
    assert complaints(policy["ingress"], at(rules, "ingressRules")) == []
    pod = at(CLUSTER_SCHEMA, "workerGroupSpecs", "*", "template", "spec")
    claim = at(pod, "volumes", "*", "ephemeral", "volumeClaimTemplate", "spec")
    assert complaints(read("storage.yaml")["spec"], claim) == []
    env = group("cpu-env")
    labels = env["template"]["metadata"]["labels"] | {"ray.io/group": env["groupName"]}
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def groups() -> list[dict[str, Any]]:
    return list(read("raycluster.yaml")["spec"]["workerGroupSpecs"])


def group(name: str) -> dict[str, Any]:
    return next(g for g in groups() if g["groupName"] == name)


def pods(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"].get("rayClusterSpec") or manifest["spec"]
    found = {g["groupName"]: g["template"]["spec"] for g in spec.get("workerGroupSpecs", [])}
    if "headGroupSpec" in spec:
        found["head"] = spec["headGroupSpec"]["template"]["spec"]
    if "submitterPodTemplate" in manifest["spec"]:
        found["submitter"] = manifest["spec"]["submitterPodTemplate"]["spec"]
    return found


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml", "rayjob-bucket.yaml"])
def test_no_pod_has_more_rights_than_it_needs(name):
    for where, pod in pods(read(name)).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["runAsUser"] > 0, where
        assert not any("hostPath" in volume for volume in pod.get("volumes", [])), where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), where
        assert where == "head" or pod["automountServiceAccountToken"] is False, where
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False, where
            assert rights["capabilities"] == {"drop": ["ALL"]}, where
            assert "privileged" not in rights, where
            limits = container["resources"]["limits"]
            assert {"cpu", "memory"} <= limits.keys(), where
            if where != "cpu-env":
                assert not {"procMount", "seccompProfile"} & rights.keys(), where


def test_env_pods_are_in_a_user_namespace_and_hold_no_secret():
    pod = group("cpu-env")["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["hostUsers"] is False, "without it an unmasked /proc is the node's, and Kubernetes refuses it"
    assert container["securityContext"]["procMount"] == "Unmasked"
    assert "envFrom" not in container
    assert all("valueFrom" not in entry for entry in container["env"])
    assert all("emptyDir" in volume for volume in pod["volumes"])


def test_the_job_has_the_cluster_of_the_other_file():
    assert (FOLDER / "rayjob.yaml").read_text() == render(), "python deploy/kubernetes/make_rayjob.py"
    assert read("rayjob.yaml")["spec"]["rayClusterSpec"] == read("raycluster.yaml")["spec"]


def node_types() -> dict[str, Any]:
    manifest = read("raycluster.yaml")
    manifest["metadata"]["namespace"] = "default"
    return dict(_derive_autoscaling_config_from_ray_cr(manifest)["available_node_types"])


def test_ray_s_autoscaler_reads_the_node_types_of_the_other_clusters():
    ours = node_types()
    other = yaml.safe_load((ROOT / "deploy/ray/cluster.yaml").read_text())["available_node_types"]
    names = {"gpu-learner": "gpu.learner", "gpu-rollout": "gpu.rollout", "cpu-env": "cpu.env"}
    assert ours.keys() == {*names, "headgroup"}
    assert ours["headgroup"]["resources"]["CPU"] == 0
    for name, its in names.items():
        for key in ("labels", "min_workers", "max_workers"):
            assert ours[name][key] == other[its][key], name
        for key, amount in other[its]["resources"].items():
            assert ours[name]["resources"][key] == amount, (name, key)


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayjob-bucket.yaml"])
def test_the_run_of_a_job_is_valid_and_has_room(name):
    program, command, path, *overrides = shlex.split(read(name)["spec"]["entrypoint"])
    assert (program, command) == ("sdpo", "train")
    config = load_run_config(ROOT / path.removeprefix("/runs/"), overrides)
    assert config.env.sandbox.kind == "bubblewrap"
    room = [dict(node["resources"]) for node in node_types().values() for _ in range(node["max_workers"])]
    room.sort(key=lambda node: "GPU" in node)  # what needs no GPU goes first where there is none
    for role, (count, request) in config.demand.items():
        for _ in range(count):
            node = next((n for n in room if all(n.get(key, 0) >= amount for key, amount in request.items())), None)
            assert node is not None, f"no room for {role}: {request}"
            for key, amount in request.items():
                node[key] -= amount


def test_images_are_named_as_they_are_built():
    built = re.findall(r"name=(\S+)", (ROOT / "deploy/docker/build_node.sh").read_text())
    used = {
        container["image"]
        for name in ("raycluster.yaml", "rayjob.yaml", "rayjob-bucket.yaml")
        for pod in pods(read(name)).values()
        for container in pod["containers"]
    }
    assert used == {f"sdpo-gpu:{__version__}", f"sdpo-env-node:{__version__}"}
    assert {image.split(":")[0] for image in used} <= set(built)


def test_prometheus_finds_the_port_of_every_pod():
    monitor = read("podmonitor.yaml")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    spec = read("raycluster.yaml")["spec"]
    for entry in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        template = entry["template"]
        assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        assert ports[endpoint["port"]] == 8080, "KubeRay starts Ray with --metrics-export-port=8080"


def test_a_head_that_goes_has_time_for_its_hook():
    pod = read("raycluster.yaml")["spec"]["headGroupSpec"]["template"]["spec"]
    (container,) = pod["containers"]
    program = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    compile(program, "preStop", "exec")
    (waits_s,) = map(int, re.findall(r"monotonic\(\) \+ (\d+)", program))
    stop_s = int(next(e["value"] for e in container["env"] if e["name"] == "RAY_JOB_STOP_WAIT_TIME_S"))
    assert stop_s < waits_s < pod["terminationGracePeriodSeconds"] - 60
