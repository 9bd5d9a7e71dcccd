"""Compare the fused scoring head with plain code: memory and time of one SDPO loss on given hidden states.

    python -m benchmarks.objective OUT.json [--tokens 512 1024] [--hidden 1024] [--dtype float32] [--repeats 5]

Plain: full logits -> float32 log-softmax -> top-K and gather -> divergence, for teacher (no gradient, its top K are the
support) and student (gradients of hidden states and output weight). Fused: `learner.head.ScoringHead`. Both call the
same `token_losses`. Extra memory is the peak of what the allocator gave out, but for inputs, outputs and the gradients
from the moment that they exist (buffers inside a matrix product are not the allocator's). Times are paired: both
ways in turn, order alternating, in one process; the ratio is the median of the pairs' ratios.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from learner.chunk import TokenLogProbs
from learner.head import ScoreRequest, ScoringHead
from sdpo.config import SdpoObjective
from sdpo.token_targets import TokenTargets

TEMPERATURE = 1.0
WAYS = ("plain", "fused")
TASKS = ("student_and_teacher", "teacher")


@dataclass(frozen=True, kw_only=True)
class Case:
    """T scored tokens, hidden size H, vocabulary V, support size K; chunk: positions whose logits exist at one time."""

    device: str
    dtype: str
    tokens: int
    hidden: int
    vocabulary: int
    top_k: int
    chunk: int


class Inputs:
    """Return random hidden states and output weights of student and teacher, made without temporaries."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        dtype, device = getattr(torch, case.dtype), torch.device(case.device)
        self.case = case

        def normal(rows: int, scale: float) -> Tensor:
            return torch.empty(rows, case.hidden, dtype=dtype, device=device).normal_(0, scale)

        self.hidden, self.teacher_hidden = normal(case.tokens, 1.0).requires_grad_(), normal(case.tokens, 1.0)
        scale = 3.0 / case.hidden**0.5  # logits of standard deviation 3
        self.layer, self.teacher_layer = _layer(normal(case.vocabulary, scale)), _layer(normal(case.vocabulary, scale))
        self.teacher_layer.requires_grad_(False)
        self.sampled_ids = torch.randint(case.vocabulary, (case.tokens,), device=device)
        self.behaviour = torch.full((case.tokens,), -9.0, device=device)
        self.objective = SdpoObjective(kind="sdpo", support="teacher", top_k=case.top_k)

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        return self.hidden.grad, self.layer.weight.grad

    def forget_gradients(self) -> None:
        self.hidden.grad = self.layer.weight.grad = None

    def loss_of(self, student: TokenLogProbs, teacher: TokenLogProbs, rows: slice) -> Tensor:
        assert teacher.support is not None
        assert teacher.tail is not None
        targets = TokenTargets(
            behaviour=self.behaviour[rows],
            advantage=torch.zeros_like(self.behaviour[rows]),
            has_teacher=torch.ones_like(self.behaviour[rows], dtype=torch.bool),
            teacher_sampled=teacher.sampled[rows],
            teacher_support=teacher.support[rows],
            teacher_tail=teacher.tail[rows],
        )
        return self.objective.token_losses(student, targets)


def _layer(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight)
    return layer


def plain_scores(hidden: Tensor, layer: nn.Linear, inputs: Inputs, support_ids: Tensor | None) -> TokenLogProbs:
    """Compute the loss in plain code; support_ids None: the model's own top K."""
    log_probs = torch.log_softmax((layer(hidden) / TEMPERATURE).float(), -1)
    if support_ids is None:
        support, support_ids = log_probs.topk(inputs.case.top_k)
    else:
        support = log_probs.gather(1, support_ids)
    sampled = log_probs.gather(1, inputs.sampled_ids[:, None])[:, 0]
    tail = torch.log(-torch.expm1(support.logsumexp(-1).clamp(max=-1e-7)))
    return TokenLogProbs(sampled, support_ids, support, tail, torch.zeros_like(sampled))


def plain(inputs: Inputs, task: str) -> Any:
    """Return the output; gradients are in `.grad`."""
    with torch.no_grad():
        teacher = plain_scores(inputs.teacher_hidden, inputs.teacher_layer, inputs, None)
    if task == "teacher":
        return teacher
    student = plain_scores(inputs.hidden, inputs.layer, inputs, teacher.support_ids)
    losses = inputs.loss_of(student, teacher, slice(None))
    losses.mean().backward()  # type: ignore[no-untyped-call]
    return losses.detach()


def fused(inputs: Inputs, task: str) -> Any:
    """As `plain`."""
    case = inputs.case
    teacher_head, head = (
        ScoringHead(SimpleNamespace(get_output_embeddings=lambda: layer), case.chunk)  # noqa: B023
        for layer in (inputs.teacher_layer, inputs.layer)
    )

    def request(support_ids: Tensor | None, **more: Any) -> ScoreRequest:
        batch: Any = SimpleNamespace(sampled_ids=inputs.sampled_ids, support_ids=support_ids)
        return ScoreRequest(batch=batch, temperature=TEMPERATURE, top_k=case.top_k, **more)

    with torch.no_grad():
        teacher = teacher_head(inputs.teacher_hidden, request(None, support="top_k")).log_probs
    if task == "teacher":
        return teacher

    def loss(student: TokenLogProbs, rows: slice) -> Tensor:
        return inputs.loss_of(student, teacher, rows)

    scored = head(inputs.hidden, request(teacher.support_ids, support="given", loss=loss))
    (scored.total / case.tokens).backward()
    return scored.losses


def memory(case: Case, task: str) -> dict[str, float]:
    """Return the extra MiB of both methods."""
    found = {}
    for way in WAYS:
        inputs = Inputs(case)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            output = globals()[way](inputs, task)
        tensors = [*(output if isinstance(output, tuple) else (output,)), *inputs.gradients()]
        stays = {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor is not None}
        found[way] = peak_bytes(profiler, case.device, stays) / 2**20
        del inputs, output, tensors
    return {f"{way}_extra_mib": round(found[way], 1) for way in WAYS} | {
        "fused_over_plain_memory": round(found["fused"] / found["plain"], 4)
    }


def peak_bytes(profiler: profile, device: str, stays: set[int]) -> int:
    """Return the peak of live bytes, without the memory at the addresses `stays` at the end."""
    assert profiler.profiler is not None
    results: Any = profiler.profiler.kineto_results
    events = [node for node in _all_nodes(results.experimental_event_tree()) if node.tag == _EventType.Allocation]
    events = sorted((e for e in events if e.extra_fields.device.type == device), key=lambda e: e.start_time_ns)
    last = {e.extra_fields.ptr: i for i, e in enumerate(events) if e.extra_fields.alloc_size > 0}
    kept = {last[address] for address in stays if address in last}
    alive = peak = 0
    for i, event in enumerate(events):
        alive += 0 if i in kept else event.extra_fields.alloc_size
        peak = max(peak, alive)
    return peak


def _all_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        yield from _all_nodes(node.children)


def times(case: Case, task: str, repeats: int) -> dict[str, Any]:
    """Medians over `repeats` pairs, after one that does not count. On a machine with other work look at the process's
    CPU seconds, with one thread.
    """
    inputs = Inputs(case)
    wall: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way in WAYS if repeat % 2 else reversed(WAYS):
            inputs.forget_gradients()
            _synchronise(case)
            began, cpu_began = time.perf_counter(), time.process_time()
            globals()[way](inputs, task)
            _synchronise(case)
            wall[way].append(time.perf_counter() - began)
            cpu[way].append(time.process_time() - cpu_began)
    result: dict[str, Any] = {f"{way}_s": round(statistics.median(wall[way][1:]), 4) for way in WAYS}
    for name, seconds in (("time", wall), ("cpu_time", cpu)):
        ratios = [f / p for p, f in zip(seconds["plain"][1:], seconds["fused"][1:], strict=True)]
        result[f"fused_over_plain_{name}"] = round(statistics.median(ratios), 3)
        result[f"{name}_ratios"] = [round(r, 3) for r in ratios]
    return result


def _synchronise(case: Case) -> None:
    if case.device == "cuda":
        torch.cuda.synchronize()


def difference(case: Case) -> dict[str, float]:
    """That both ways compute the same, on a few tokens: norms of the differences over norms of the plain way's."""
    inputs = Inputs(replace(case, tokens=min(case.tokens, 128)))
    found = []
    for way in WAYS:
        inputs.forget_gradients()
        losses = globals()[way](inputs, TASKS[0])
        assert inputs.hidden.grad is not None
        assert inputs.layer.weight.grad is not None
        found.append((losses, inputs.hidden.grad, inputs.layer.weight.grad))
    names = ("losses", "hidden_gradient", "weight_gradient")
    return {
        name: float((fused_one.float() - plain_one.float()).norm() / plain_one.float().norm())
        for name, plain_one, fused_one in zip(names, *found, strict=True)
    }


def machine(device: str) -> dict[str, Any]:
    """Return the description of the machine."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in info]
    return {
        "cpu": (names or [platform.machine()])[0],
        "cpus": len(os.sched_getaffinity(0)),
        "flags": flags,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    """Measure every case, write OUT.json after each, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16" if torch.cuda.is_available() else "float32")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192] if torch.cuda.is_available() else [1024])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--chunk", type=int, nargs="+", default=[256])
    parser.add_argument("--repeats", type=int, default=5, help="0: memory only")
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    result: dict[str, Any] = {"machine": machine(given.device), "temperature": TEMPERATURE, "cases": []}
    for tokens in given.tokens:
        for chunk in given.chunk:
            case = Case(
                device=given.device, dtype=given.dtype, tokens=tokens, hidden=given.hidden,
                vocabulary=given.vocabulary, top_k=given.top_k, chunk=chunk,
            )  # fmt: skip
            found: dict[str, Any] = {"case": asdict(case)}
            for task in TASKS:
                measured = {} if given.no_memory else memory(case, task)
                found[task] = measured | (times(case, task, given.repeats) if given.repeats else {})
                print(json.dumps({"tokens": tokens, "chunk": chunk, "task": task} | found[task]), flush=True)
            found["relative_difference"] = difference(case)
            result["cases"].append(found)
            given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
