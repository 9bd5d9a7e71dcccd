"""The GPUs of this machine, as nvidia-smi reports them."""

import subprocess
from dataclasses import dataclass

from sdpo.show import MIB

QUERY_TIMEOUT_S = 15.0
_FIELDS = "index,name,memory.total,memory.free,driver_version,mig.mode.current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. total, free: memory in bytes. mig: whether it is split into slices."""

    index: int
    name: str
    total: int
    free: int
    driver: str
    mig: bool


def gather_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs; () without nvidia-smi. Raises `OSError` or `subprocess.SubprocessError` if it fails."""
    command = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True)
    except FileNotFoundError:
        return ()
    return parse_gpus(answer.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Parse one line for each GPU: the fields of _FIELDS, memory in MiB."""
    gpus = []
    for line in filter(None, map(str.strip, text.splitlines())):
        index, name, total, free, driver, mig = (field.strip() for field in line.split(","))
        memory = {"total": int(total) * MIB, "free": int(free) * MIB}
        gpus.append(Gpu(index=int(index), name=name, driver=driver, mig=mig == "Enabled", **memory))
    return tuple(gpus)
