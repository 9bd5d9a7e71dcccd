"""Pretraining: next-token loss on the answers of the mix, in batches padded by length, on the CPU in float32.

Data parallel over processes of one thread each, which meet once a step: threads of one process would meet at every
operation, and that is many times slower when other programs share the cores.
"""

import math
import random
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen3Config, Qwen3ForCausalLM

from examples.tinycoder.corpus import Example

BATCH_SIZE = 32
NUM_PROCESSES = 2
MICRO_BATCHES = 2
LEARNING_RATE = 3e-3
WARMUP_STEPS = 50
MAX_GRAD_NORM = 1.0


def new_model(vocab_size: int, pad_id: int, eos_id: int, bos_id: int, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 of 0.9 million parameters with random weights."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=pad_id,
        eos_token_id=eos_id,
        bos_token_id=bos_id,
    )
    return Qwen3ForCausalLM(config)


def pretrain(
    model: Qwen3ForCausalLM,
    examples: list[Example],
    steps: int,
    seed: int,
    on_step: Callable[[int, float], None],
) -> None:
    """AdamW with a cosine schedule over `steps` batches; `examples` are gone through again when they run out.

    Runs in every process of an initialised process group, each with the same arguments and weights; `on_step` is
    called with the step (from 1) and this process's share of the mean loss of the batch.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    model.train()
    for step, batch in zip(range(1, steps + 1), _batches(examples, random.Random(seed)), strict=False):
        num_answer_tokens = sum(len(e.answer_ids) for e in batch)
        loss = torch.zeros(())
        for chunk in _by_length(batch):
            chunk_loss = _loss(model, chunk[rank::world]) / num_answer_tokens
            chunk_loss.backward()  # type: ignore[no-untyped-call]
            loss += chunk_loss.detach()
        _sum_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        on_step(step, loss.item() * world)
    model.eval()


def _sum_gradients(model: Qwen3ForCausalLM) -> None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.view(-1) for g in gradients])
    dist.all_reduce(flat)
    for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _batches(examples: list[Example], rng: random.Random) -> Iterator[list[Example]]:
    order = list(range(len(examples)))
    while True:
        rng.shuffle(order)
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            yield [examples[i] for i in order[start : start + BATCH_SIZE]]


def _by_length(batch: list[Example]) -> Iterator[list[Example]]:
    ordered = sorted(batch, key=lambda e: len(e.prompt_ids) + len(e.answer_ids))
    size = math.ceil(len(ordered) / MICRO_BATCHES)
    return (ordered[i : i + size] for i in range(0, len(ordered), size))


def _loss(model: Qwen3ForCausalLM, batch: list[Example]) -> Tensor:
    """Sum of the answer tokens' negative log-probs. Padding is on the right, so the causal mask alone is enough."""
    ids = pad_sequence([torch.tensor(e.prompt_ids + e.answer_ids) for e in batch], batch_first=True)
    answer = torch.zeros_like(ids, dtype=torch.bool)
    for row, example in zip(answer, batch, strict=True):
        row[len(example.prompt_ids) : len(example.prompt_ids) + len(example.answer_ids)] = True
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[answer[:, 1:]])
    return cross_entropy(logits, ids[:, 1:][answer[:, 1:]], reduction="sum")
