"""Random-weight causal language models in a second: real folders that transformers and vLLM load.

Run with pytest's root on the path: `from tests.tiny_models import make_tiny_model`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("double", "triple", "halve", "negate", "square", "increment", "absolute", "subtract", "modulo")


def _corpus() -> Iterator[str]:
    """Enough text of the kind that the tests use for byte-pair merges to exist."""
    for n, word in enumerate(WORDS * 40):
        yield f"Write f(x): {word} it, then add {n}.\ndef f(x):\n    return x * {n} + {n * 7 % 13}\n"
        yield f"Test failed: f({n}) returned {n * 3}, expected {n * 2}. Correctly solve the original question {word}."


def make_tiny_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocab_size` tokens with a chat template; `<|im_end|>` ends a turn."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )


def make_tiny_model(
    folder: Path | str,
    *,
    architecture: Literal["qwen3", "qwen2"] = "qwen3",
    vocab_size: int = 384,
    hidden_size: int = 64,
    num_layers: int = 2,
    num_heads: int = 2,
    num_kv_heads: int = 1,
    head_dim: int = 32,
    max_position_embeddings: int = 2048,
    tie_word_embeddings: bool = True,
    initializer_range: float = 0.2,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write config, tokenizer, chat template and random weights (a function of `seed`) to `folder`.

    `initializer_range` is wide, so that next-token distributions are far from uniform. The tokenizer does not
    depend on `seed`: models that differ in it only can exchange weights.
    """
    folder = Path(folder)
    tokenizer = make_tiny_tokenizer(vocab_size)
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "max_position_embeddings": max_position_embeddings,
        "tie_word_embeddings": tie_word_embeddings,
        "initializer_range": initializer_range,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    }
    config = Qwen3Config(head_dim=head_dim, **shape) if architecture == "qwen3" else Qwen2Config(**shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
