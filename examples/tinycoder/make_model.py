"""Make tinycoder's base model from nothing: `python -m examples.tinycoder.make_model`, from the repository root.

Tokenizer, pretraining mix and weights are functions of `--seed`. About twenty minutes on two cores.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from env_workers.code.feedback import FEEDBACK_VERSION
from examples.tinycoder import corpus
from examples.tinycoder.make_tasks import train_tasks
from examples.tinycoder.pretrain import BATCH_SIZE, LEARNING_RATE, NUM_PROCESSES, new_model, pretrain
from examples.tinycoder.tokenizer import START, train_tokenizer
from sdpo.reprompt import TEMPLATE_VERSION

FOLDER = Path(__file__).parent / "model"
STEPS = 4000
MAX_DISTINCT_EXAMPLES = 128_000
LOG_EVERY_STEPS = 50
SAVE_EVERY_STEPS = 500


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, made: dict[str, Any]) -> None:
    """A Hugging Face folder in bfloat16, and `sdpo.json`: what the model was made for, and how."""
    dtype = model.dtype
    model.generation_config.update(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    model.to(torch.bfloat16).save_pretrained(folder)
    model.to(dtype)
    tokenizer.save_pretrained(folder)
    record = {"template_version": TEMPLATE_VERSION, "feedback_version": FEEDBACK_VERSION, "made": made}
    (folder / "sdpo.json").write_text(json.dumps(record, indent=2) + "\n")


def _train(
    rank: int, arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, examples: Any, store: str
) -> None:
    """One of the training processes; the first one reports and saves."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=NUM_PROCESSES)
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(START))
    model = new_model(len(tokenizer), *ids, seed=arguments.seed)
    made = {
        "by": "examples/tinycoder/make_model.py",
        "seed": arguments.seed,
        "steps": arguments.steps,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "bad_habit_probability": corpus.BAD_HABIT_PROBABILITY,
        "num_parameters": sum(p.numel() for p in model.parameters()),
    }
    started, losses = time.monotonic(), list[float]()

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if rank == 0 and step % LOG_EVERY_STEPS == 0:
            mean = sum(losses[-LOG_EVERY_STEPS:]) / LOG_EVERY_STEPS
            print(f"step {step}/{arguments.steps}  loss {mean:.4f}  {time.monotonic() - started:.0f} s", flush=True)
        if rank == 0 and step % SAVE_EVERY_STEPS == 0:
            save(model, tokenizer, arguments.out, {**made, "steps": step})

    pretrain(model, examples, arguments.steps, arguments.seed, on_step)
    if rank == 0:
        save(model, tokenizer, arguments.out, made)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train = train_tasks()
    mix = corpus.Mix(train, arguments.seed)
    tokenizer = train_tokenizer(mix.texts())
    examples = [mix.draw(tokenizer) for _ in range(min(MAX_DISTINCT_EXAMPLES, arguments.steps * BATCH_SIZE))]
    print(f"{len(train)} tasks, {len(tokenizer)} tokens, {len(examples)} examples", flush=True)
    with TemporaryDirectory() as folder:
        arguments_of_each = (arguments, tokenizer, examples, f"{folder}/store")
        spawn(_train, arguments_of_each, NUM_PROCESSES)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
