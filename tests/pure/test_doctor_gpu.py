"""What the doctor says of GPUs, from nvidia-smi's answers."""

from orchestrator.commands.doctor.finding import Level
from orchestrator.commands.doctor.gpu import gpu_check, judge_gpus
from orchestrator.inputs.gpus import parse_gpus
from sdpo.config import RunConfig
from tests.fixtures.doctor import only

MIB = 2**20


def test_gpus() -> None:
    text = "0, NVIDIA H100 80GB HBM3, 81559, 81000, 560.35, Disabled\n1, NVIDIA H100, 81559, 5, 560.35, Enabled\n"
    gpus = parse_gpus(text)
    assert (gpus[0].total, gpus[1].free, gpus[1].mig) == (81559 * MIB, 5 * MIB, True)
    assert only(judge_gpus(gpus, 3.0), "too few").level is Level.BROKEN
    assert only(judge_gpus(gpus, 2.0), "mig 1").level is Level.NOTE
    assert not [f for f in judge_gpus(gpus, 2.0) if f.level is Level.BROKEN]
    assert only(judge_gpus((), 1.0), "gpus").level is Level.BROKEN
    assert only(judge_gpus((), 0.0), "gpus").level is Level.OK


def test_gpus_are_needed_where_the_run_asks_for_them() -> None:
    assert not gpu_check(None).needed
    assert not gpu_check(RunConfig()).needed
    assert gpu_check(RunConfig.model_validate({"placement": {"learner": {"num_gpus": 1}}})).needed
