"""What a run needs to know of itself for its plans: sizes of the model, lengths of the tasks, room on the machine."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.doctor.checks_gpu import Gpu, gather_gpus
from orchestrator.doctor.facts_machine import gather_memory
from orchestrator.doctor.memory_plan import Lengths
from orchestrator.doctor.model_shape import ModelShape, read_model_shape
from orchestrator.inputs import Inputs
from orchestrator.run_dir import RunDir
from sdpo.chat import render_prompt
from sdpo.config import RunConfig
from sdpo.errors import UserError
from sdpo.storage import is_uri
from sdpo.storage_cache import cache_folder, fetched
from sdpo.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """refused: the one line with which the run would refuse to start, "" if it would start. model None: no such model,
    which `refused` then says. lengths: measured on the tasks where they could be read, else what the config allows.
    free_memory, free_disk, free_shm: bytes; on_cluster: the run would be placed on other machines (RAY_ADDRESS).
    """

    config: RunConfig
    refused: str
    num_tasks: int
    num_heldout: int
    model: ModelShape | None
    lengths: Lengths
    measured: bool
    free_memory: int
    free_disk: int
    free_shm: int
    gpus: tuple[Gpu, ...]
    on_cluster: bool


def gather_run(config: RunConfig) -> RunFacts:
    """Reads tasks, tokenizer and headers, as the run does before it starts; loads no weights."""
    refused, inputs, lengths = "", None, Lengths.allowed(config)
    try:
        inputs = _accepted(config)
        lengths = _measured(config, inputs.tokenizer, [*inputs.train, *inputs.heldout])
    except UserError as error:
        refused = str(error)
    try:
        model = read_model_shape(str(fetched(config.model.path)))
    except UserError as error:
        model, refused = None, refused or str(error)
    return RunFacts(
        config=config,
        refused=refused,
        num_tasks=0 if inputs is None else len(inputs.train),
        num_heldout=0 if inputs is None else len(inputs.heldout),
        model=model,
        lengths=lengths,
        measured=inputs is not None and bool(inputs.train),
        free_memory=gather_memory().usable,
        free_disk=_free(cache_folder() if is_uri(config.dir) else Path(config.dir).absolute()),
        free_shm=_free(Path("/dev/shm")),
        gpus=gather_gpus(),
        on_cluster=bool(os.environ.get("RAY_ADDRESS")),
    )


def _accepted(config: RunConfig) -> Inputs:
    """What the run would start with. Raises `UserError` where it would refuse to start."""
    run_dir = RunDir(config)
    with redirect_stdout(sys.stderr):  # what a run remarks on is no part of the findings
        run_dir.check()
        inputs = Inputs.load(config)
        run_dir.check_inputs(inputs.digests)
    return inputs


def _measured(config: RunConfig, tokenizer: Any, tasks: Sequence[Task]) -> Lengths:
    """The longest prompt there is; responses and hindsight prompts may grow to what the config allows."""
    thinking, allowed = config.model.enable_thinking, Lengths.allowed(config)
    lengths = [len(render_prompt(tokenizer, t.messages, enable_thinking=thinking)) for t in tasks]
    prompt = max(lengths, default=allowed.prompt)
    return Lengths(prompt=prompt, response=allowed.response, hindsight=allowed.hindsight)


def _free(path: Path) -> int:
    folder = next(p for p in (path, *path.parents) if p.is_dir())
    return shutil.disk_usage(folder).free
