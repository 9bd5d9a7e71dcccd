"""Deaths by lack of memory, by the texts with which Ray 2.60, vLLM 0.32 and torch 2.13 tell of them."""

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from orchestrator.actors.fleet import ACTOR_FAILURES
from orchestrator.failures import one_line
from orchestrator.memory.deaths import Death, deaths_explained, kernel_kills, lack_of_memory, line_of
from orchestrator.memory.run_memory import RunMemory
from orchestrator.telemetry.run_telemetry import failure_of
from sdpo.errors import ConfigError, InfrastructureError, LearnerDied, OutOfMemory
from tests.fixtures.doctor import LENGTHS, SEVEN_B, config_of

MEMORY = RunMemory(config=config_of(rollout={"kv_cache_gib": 8.0}), model=SEVEN_B, lengths=LENGTHS)
OF_THE_MONITOR = """\
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: 3ba2dabad0) was \
5.90GB used / 23.54GB limit (0.250586)
OOM kill reason: Memory usage 6325444608B exceeded threshold of 6319014912B (25.0% of 25276059648B limit)
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Actor(6a18eee2f90aad1deaf92ed901000000): job ID=01000000, lease ID=00000000957d4ba1, task \
name=NAME:RolloutWorker.__init__, required resources={}, pid=10061, actual memory used=4.72GB, worker ID=8f9b5065)
]
Top 10 memory users: PID	MEM(GB)	COMMAND
10061	4.72	ray::teacher-0 scoring
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/
"""
WITHOUT_A_WORD = """\
The actor died unexpectedly before finishing this task.
	class_name: EnvWorker
	actor_id: 26044225f5e386d8def3198301000000
	pid: 10060
	name: env-3-r1
	namespace: sdpo-x
	ip: 192.0.2.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed \
by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly \
due to SIGSEGV or another unexpected error. If the process was killed by the kernel OOM killer (verifiable by checking \
for OOM in dmesg of the OOMing node), consider enabling resource isolation via --enable-resource-isolation.
"""
NO_CACHE = (
    "rollout-0: the engine did not start: ValueError: Available memory on node 0 (20.1/23.5 GiB) on kv cache "
    "allocation is less than requested memory for kv (100.0 GiB). Decrease --kv-cache-memory-bytes, "
    "VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes."
)


def monitor(name: str) -> OutOfMemoryError:
    return OutOfMemoryError(OF_THE_MONITOR.replace("NAME", name))


def died() -> ActorDiedError:
    error = ActorDiedError()
    error.args = (WITHOUT_A_WORD,)
    error.error_msg = WITHOUT_A_WORD
    return error


def remote(error: Exception) -> Exception:
    """As Ray raises an error of a remote call."""
    actor = "\x1b[36mray::RolloutWorker.start()\x1b[39m (pid=13786, ip=192.0.2.2, actor_id=e65918, repr=rollout-0)"
    text = f'{actor}\n  File "x.py", line 3, in start\n    raise MemoryError(words)\n{error}'
    made: Exception = RayTaskError("RolloutWorker.start", text, error).as_instanceof_cause()
    return made


@pytest.mark.parametrize("name", ["rollout-0", "learner-rank1", "teacher-2", "env-0-r1"])
def test_rays_memory_monitor_names_the_actor(name: str) -> None:
    death = lack_of_memory(monitor(name))
    reason = "Ray ended it because its node was full (5.90GB used / 23.54GB limit, itself 4.72GB)"
    assert death == Death(role=name.partition("-")[0], actor=name, reason=reason)


def test_of_several_that_the_monitor_ended_the_largest_is_named() -> None:
    one = OF_THE_MONITOR.replace("NAME", "learner-rank0")
    selected = next(line for line in one.splitlines() if line.startswith("Selected"))
    other = selected.replace("learner-rank0:", "rollout-0:").replace("4.72", "9.5")
    whole = OutOfMemoryError(one.replace(selected, f"{selected}\n{other}"))
    learner = LearnerDied(f"learner: {str(whole).splitlines()[0]}")
    learner.__cause__ = whole
    death = lack_of_memory(learner)
    assert death is not None
    assert (death.role, death.actor) == ("rollout", "rollout-0")
    assert death.reason.endswith("itself 9.5GB)")


def test_an_actor_that_the_monitor_ended_is_replaced_as_any_dead_one() -> None:
    error = monitor("teacher-0")
    assert isinstance(error, ACTOR_FAILURES)
    assert failure_of(error) == "actor_died"
    assert one_line(error).startswith("1 worker(s) were killed due to the node running low on memory. ")


def test_a_process_that_ends_without_a_word_is_a_death_by_memory_only_if_the_kernel_killed() -> None:
    assert lack_of_memory(died()) is None
    death = lack_of_memory(died(), kernel_kills=2)
    assert death is not None
    assert (death.role, death.actor, death.probable) == ("env", "env-3-r1", True)
    assert line_of(death, MEMORY).startswith("env-3-r1 had probably not enough memory: it was killed, as 2 processes ")
    killed = InfrastructureError("rollout-1: the engine did not start: RuntimeError: Failed core proc(s): {'E_0': -9}")
    assert lack_of_memory(killed) is None
    assert lack_of_memory(killed, kernel_kills=1) is not None


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 107374182400 bytes. Error code 12 (Cannot allocate memory)",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "[Errno 12] Cannot allocate memory",
        "std::bad_alloc",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "ValueError: To serve at least one request with the model's max seq len (8192), (1.0 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (0.5 GiB).",
        "ValueError: Free memory on device cuda:0 (10.0/80.0 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 73.6 GiB).",
    ],
)
def test_failed_allocations(text: str) -> None:
    death = lack_of_memory(remote(RuntimeError(text)))
    assert death is not None
    assert (death.role, death.probable) == ("rollout", False)
    assert death.reason == text


@pytest.mark.parametrize("text", ["no space left on device", "the engine is away", "objects spillable: 0"])
def test_other_errors_are_not_about_memory(text: str) -> None:
    assert lack_of_memory(InfrastructureError(text), kernel_kills=1) is None


def test_an_engine_without_memory_for_its_cache() -> None:
    death = lack_of_memory(remote(InfrastructureError(NO_CACHE)))
    assert death is not None
    line = line_of(death, MEMORY)
    assert line.startswith("rollout-0 had not enough memory: the engine did not start: ValueError: Available memory ")
    assert "less than requested memory for kv (100.0 GiB)" in line
    assert "; the plan of one was rollout " in line
    assert "keys that lower it: rollout.kv_cache_gib, " in line
    assert "\n" not in line
    assert "the plan of one" not in line_of(death, None)


def test_the_error_that_ends_the_run_is_searched_to_its_cause() -> None:
    last = InfrastructureError("rollout-0 failed 11 times; last: x")
    last.__cause__ = monitor("rollout-0-r10")
    assert (death := lack_of_memory(last)) is not None
    assert death.actor == "rollout-0-r10"
    learner = LearnerDied("learner: ranks lost each other: gloo")
    learner.__cause__ = ExceptionGroup("g", [ValueError("x"), monitor("learner-rank1")])
    assert (death := lack_of_memory(learner)) is not None
    assert death.actor == "learner-rank1"
    member = monitor("teacher-0")
    member.__cause__ = ExceptionGroup("of which it is a member", [member])
    assert (death := lack_of_memory(member)) is not None
    assert death.actor == "teacher-0"
    bare = LearnerDied("learner: CUDA out of memory")
    assert lack_of_memory(bare) == Death(role="learner", actor="learner", reason="CUDA out of memory")


def explain(error: Exception) -> None:
    with deaths_explained(MEMORY):
        raise error


def test_the_block_raises_one_line() -> None:
    with pytest.raises(OutOfMemory, match=r"^learner-rank0 had not enough memory: .*learner\.tokens_per_micro_batch"):
        explain(monitor("learner-rank0"))
    for error in (ConfigError("a MemoryError in text"), ValueError("another fault")):
        with pytest.raises(type(error), match=str(error)):
            explain(error)


def test_the_kernels_count(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 12\n")
    assert kernel_kills(tmp_path / "vmstat") == 12
    assert kernel_kills() >= 0
