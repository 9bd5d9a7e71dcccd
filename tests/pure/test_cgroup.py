"""Control groups of both versions, from files of machines that are not this one."""

from pathlib import Path

from orchestrator.inputs.cgroup import CgroupFacts, gather_cgroup

GIB = 2**30


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
    assert gather_cgroup(tmp_path / "none") == CgroupFacts(
        version=0, memory_limit_bytes=None, memory_used_bytes=None, cpus=None
    )
