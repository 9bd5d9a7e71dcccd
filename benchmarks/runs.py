"""Whole runs on the embedded model side by side: several seeds, one run after another on the same machine.

    python -m benchmarks.runs {objectives,teachers} OUT.json [--seeds 0 1 2] [--steps N]

objectives: SDPO and GRPO. teachers: SDPO with each way to keep the teacher near the student.

For each run: wall time, peak memory (sum of PSS over all processes of the run, sampled every 2 s), held-out pass@1
before and after, mean seconds per stage and step, seconds and bytes of a weight publication. Prints a table with
ratios. "Without execution" leaves out of a step the time in which its slowest group only waited for verdicts.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from orchestrator.run_dir.metrics_log import read_metrics

SDPO, GRPO = "examples/tinycoder.yaml", "examples/tinycoder_grpo.yaml"
COMPARISONS: dict[str, dict[str, list[str]]] = {
    "objectives": {"sdpo": [SDPO], "grpo": [GRPO]},
    "teachers": {
        kind: [SDPO, f"teacher.regularisation.kind={kind}"] for kind in ("ema", "trust_region", "frozen", "live")
    },
}
"""Comparison -> name of a variant -> run file and overrides. The last variant is the one that times are divided by."""
SAMPLE_EVERY_S = 2.0
T_QUANTILE_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def main() -> None:
    """Run, write OUT.json, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for variant, command in COMPARISONS[arguments.comparison].items():
                results.append(measure(variant, command, seed, Path(folder), arguments.steps))
                print(json.dumps(results[-1]), flush=True)
                arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def measure(variant: str, arguments: list[str], seed: int, folder: Path, steps: int | None) -> dict[str, Any]:
    """One run in a process of its own."""
    name = f"{variant}-{seed}"
    command = [sys.executable, "-m", "orchestrator", "train", *arguments]
    command += [f"dir={folder}", f"name={name}", f"seed={seed}", f"tasks.seed={seed}", "record.tensorboard=false"]
    command += [f"steps={steps}"] if steps else []
    started, peak = time.monotonic(), 0
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, pss_bytes(process.pid))
            time.sleep(SAMPLE_EVERY_S)
    if process.returncode != 0:
        sys.exit((folder / f"{name}.log").read_text())
    records = read_metrics(folder / name / "metrics.jsonl")
    trained = [r for r in records if r["step"] > 0]
    stages = {
        key: round(statistics.fmean(r[key] for r in trained if key in r), 4)
        for key in sorted({key for r in trained for key in r if key.startswith(("time/", "weights/"))})
    }
    return {
        "variant": variant,
        "seed": seed,
        "steps": len(trained),
        "wall_s": round(time.monotonic() - started, 1),
        "peak_pss_gib": round(peak / 2**30, 2),
        "before": records[0]["heldout/pass@1"],
        "repair": records[0].get("repair/pass@1"),
        "after": records[-1]["heldout/pass@1"],
        "by_step": {r["step"]: r["heldout/pass@1"] for r in records if "heldout/pass@1" in r},
        "means": stages,
    }


def pss_bytes(pid: int) -> int:
    """Sum of the proportional set sizes of a process and all its descendants."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return total


def table(results: list[dict[str, Any]]) -> str:
    """Means over seeds, 95 % intervals (Student's t over seeds), and step times over the last variant's."""
    variants = list(dict.fromkeys(r["variant"] for r in results))
    lines = [f"{'':12} {'seeds':>5} {'before':>8} {'after':>8} {'95 %':>8} {'wall s':>8} {'GiB':>6} {'step s':>7}"]
    step_s, without_s = {}, {}
    for variant in variants:
        rows = [r for r in results if r["variant"] == variant]
        step_s[variant] = statistics.fmean(r["means"]["time/step_s"] for r in rows)
        waited_s = statistics.fmean(r["means"]["time/slowest_group_wait_environment_s"] for r in rows)
        without_s[variant] = step_s[variant] - waited_s
        after, wall_s = [r["after"] for r in rows], statistics.fmean(r["wall_s"] for r in rows)
        lines.append(
            f"{variant:12} {len(rows):>5} {statistics.fmean(r['before'] for r in rows):>8.3f} "
            f"{statistics.fmean(after):>8.3f} {half_width(after):>8} {wall_s:>8.1f} "
            f"{max(r['peak_pss_gib'] for r in rows):>6.2f} {step_s[variant]:>7.2f}"
        )
    last = variants[-1]
    for variant in variants[:-1]:
        ratio, without = step_s[variant] / step_s[last], without_s[variant] / without_s[last]
        lines.append(f"step time, {variant} over {last}: {ratio:.2f}; without execution {without:.2f}")
    return "\n".join(lines)


def half_width(values: list[float]) -> str:
    """Half of the 95 % interval of a mean over seeds."""
    if len(values) not in T_QUANTILE_95:
        return "-"
    return f"±{T_QUANTILE_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
