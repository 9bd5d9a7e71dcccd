"""What the doctor says of processors, memory, disks and limits that are not this machine's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.commands.doctor.cluster_probe import file_system
from orchestrator.commands.doctor.finding import Level
from orchestrator.commands.doctor.machine import (
    ELSEWHERE,
    LITTLE_SHM,
    examine_disks,
    judge_disk,
    judge_limits,
    judge_memory,
    judge_processor,
    judge_shm,
)
from orchestrator.inputs.cgroup import CgroupFacts
from orchestrator.inputs.machine import MemoryFacts, ProcessorFacts
from sdpo.config import ModelConfig, RunConfig
from tests.fixtures.doctor import only

NO_CGROUP = CgroupFacts(version=0, memory_limit_bytes=None, memory_used_bytes=None, cpus=None)
GIB, MIB = 2**30, 2**20
DISK = {"path": "/tmp", "free": 50 * GIB, "total": 100 * GIB, "writable": True, "executable": True}


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


def test_bfloat16_without_its_instructions_is_a_warning_where_the_run_uses_it() -> None:
    old = processor(flags=frozenset({"avx2"}))
    slow = RunConfig(model=ModelConfig(dtype="bfloat16"))
    fast = RunConfig(model=ModelConfig(dtype="float32"))
    assert only(judge_processor(old, slow), "dtype").level is Level.WARNING
    assert only(judge_processor(old, slow), "dtype").fix == "model.dtype=float32"
    assert only(judge_processor(old, fast), "dtype").level is Level.OK
    assert only(judge_processor(old), "dtype").level is Level.NOTE
    assert only(judge_processor(processor(), slow), "dtype").level is Level.OK
    assert only(judge_processor(processor(flags=frozenset())), "instructions").level is Level.BROKEN
    gpus = {role: {"num_gpus": 1} for role in ("rollout", "learner", "teacher")}
    on_gpus = RunConfig.model_validate({"model": {"dtype": "bfloat16"}, "placement": gpus})
    assert only(judge_processor(old, on_gpus), "dtype").level is Level.OK


def test_a_quota_of_the_control_group_counts_as_cores() -> None:
    finding = only(judge_processor(processor(cgroup=replace(NO_CGROUP, version=2, cpus=2.0))), "cores")
    assert finding.level is Level.WARNING
    assert "2 of 8 cores" in finding.message
    assert "learner.num_threads at 2" in finding.fix
    assert only(judge_processor(processor(usable=1)), "cores").level is Level.WARNING
    assert only(judge_processor(processor(load=20.0)), "load").level is Level.WARNING


def test_memory_is_what_the_control_group_leaves() -> None:
    limited = replace(NO_CGROUP, version=2, memory_limit_bytes=4 * GIB, memory_used_bytes=GIB)
    facts = MemoryFacts(total=64 * GIB, available=60 * GIB, swap_total=0, cgroup=limited)
    assert facts.usable == 3 * GIB
    assert only(judge_memory(facts), "memory").level is Level.WARNING
    assert only(judge_memory(replace(facts, cgroup=NO_CGROUP)), "memory").level is Level.OK


def test_disks() -> None:
    def levels(what: str, **changes: Any) -> dict[str, Level]:
        return {f.name: f.level for f in judge_disk(what, DISK | changes)}

    noexec = levels("temporary files", executable=False)
    assert noexec == {"temporary files": Level.OK, "noexec": Level.WARNING}
    assert levels("run directories", executable=False) == {"run directories": Level.OK}
    assert levels("run directories", writable=False) == {"run directories": Level.BROKEN}
    assert levels("run directories", free=GIB // 4) == {"run directories": Level.BROKEN}
    assert levels("run directories", free=3 * GIB) == {"run directories": Level.WARNING}
    full = DISK | {"free": 30 * GIB, "total": 1000 * GIB}
    (finding,) = judge_disk("Ray's sessions", full)
    assert (finding.level, "95%" in finding.message, finding.fix) == (Level.WARNING, True, ELSEWHERE["Ray's sessions"])
    assert only(judge_disk("run directories", full), "run directories").level is Level.OK, "only Ray refuses to spill"


def test_shared_memory_has_one_limit() -> None:
    docker = judge_shm(DISK | {"free": 64 * MIB, "total": 64 * MIB})
    assert docker.level is Level.WARNING
    assert "--shm-size" in docker.fix
    assert "64 MiB is Docker's default" in docker.message
    assert judge_shm(DISK | {"free": LITTLE_SHM - 1}).level is Level.WARNING
    assert judge_shm(DISK | {"free": LITTLE_SHM}).level is Level.OK


def test_a_file_system_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    facts = file_system(str(tmp_path / "not/yet"))
    assert facts["path"] == str(tmp_path)
    assert 0 < facts["free"] <= facts["total"]
    assert facts["writable"]


def test_every_folder_of_a_run_is_looked_at(tmp_path: Path) -> None:
    environ = {"RAY_TMPDIR": str(tmp_path / "ray"), "HF_HOME": str(tmp_path / "hub")}
    findings = list(examine_disks(RunConfig(dir=str(tmp_path / "runs")), environ))
    assert {*ELSEWHERE, "shm"} <= {f.name for f in findings}
    for name in ("run directories", "Ray's sessions", "Hugging Face's cache"):
        assert str(tmp_path) in only(findings, name).message


def test_limits() -> None:
    assert [f.level for f in judge_limits(1024, 2048, 512)] == [Level.WARNING, Level.WARNING]
    assert [f.level for f in judge_limits(1024, 65536, 65536)] == [Level.NOTE, Level.OK]
    assert [f.level for f in judge_limits(-1, -1, -1)] == [Level.OK, Level.OK]
