"""Model folders in the shapes that published models come in, with random weights: a large vocabulary, a real chat
template, default sampling settings, several end tokens, shards. Small all the same: hidden size 64, two to four layers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

CHATML = """\
{%- if messages[0].role != 'system' and default_system is defined %}{{ '<|im_start|>system\n' + default_system }}
{{- '<|im_end|>\n' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and not enable_thinking and may_think %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""
HEADERS = """\
{{- bos_token }}
{%- for message in messages %}
{%- set role = 'ipython' if message.role == 'tool' else message.role %}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
HEADER_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
WIDE = 0.2  # of the initial weights: next-token distributions are then far from uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """vocabulary: rows of the embedding; `known` of them are tokens of the tokenizer, the others padding."""

    config: Callable[..., Any]
    vocabulary: int
    known: int
    template: str
    specials: tuple[str, ...]
    eos: tuple[str, ...]
    tied: bool
    dtype: torch.dtype = torch.bfloat16
    bos: str | None = None
    pad: str | None = None
    shard_bytes: int = 2**30
    template_in_config: bool = False
    tokenizer_class: str = "PreTrainedTokenizerFast"
    extra: dict[str, Any] = field(default_factory=dict)


SHAPES: dict[str, Shape] = {
    "qwen3": Shape(
        config=transformers.Qwen3Config,
        vocabulary=151_936,
        known=151_669,
        template="{%- set may_think = true %}" + CHATML,
        specials=CHATML_TOKENS,
        eos=("<|im_end|>", "<|endoftext|>"),
        pad="<|endoftext|>",
        tied=True,
        template_in_config=True,
        tokenizer_class="Qwen2Tokenizer",
        extra={"head_dim": 32},
    ),
    "qwen2": Shape(
        config=transformers.Qwen2Config,
        vocabulary=152_064,
        known=151_665,
        template="{%- set default_system = 'You are a helpful assistant.' %}" + CHATML,
        specials=CHATML_TOKENS,
        eos=("<|im_end|>", "<|endoftext|>"),
        pad="<|endoftext|>",
        tied=False,
        shard_bytes=10 * 2**20,
        tokenizer_class="Qwen2Tokenizer",
    ),
    "llama": Shape(
        config=transformers.LlamaConfig,
        vocabulary=128_256,
        known=128_256,
        template=HEADERS,
        specials=HEADER_TOKENS,
        eos=("<|eot_id|>", "<|end_of_text|>"),
        bos="<|begin_of_text|>",
        tied=True,
        extra={
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 256,
            }
        },
    ),
    "olmo3": Shape(
        config=transformers.Olmo3Config,
        vocabulary=100_352,
        known=100_278,
        template="{%- set default_system = 'You are a helpful function-calling AI assistant.' %}" + CHATML,
        specials=CHATML_TOKENS,
        eos=("<|im_end|>", "<|endoftext|>"),
        pad="<|endoftext|>",
        tied=False,
        dtype=torch.float32,
        extra={
            "num_hidden_layers": 4,
            "sliding_window": 16,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        },
    ),
}


def make_shaped_model(folder: Path, name: str, seed: int = 0) -> Path:
    """A folder of SHAPES[name]. Weights are a function of `seed`."""
    shape = SHAPES[name]
    tokenizer = _tokenizer(shape)
    eos = tokenizer.convert_tokens_to_ids(list(shape.eos))
    settings: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": shape.tied,
        "initializer_range": WIDE,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": eos if shape.bos else eos[0],
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(shape.config(**settings | shape.extra))  # type: ignore[no-untyped-call]
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.5, top_k=3, repetition_penalty=1.3, eos_token_id=eos
    )
    model.to(shape.dtype).save_pretrained(folder, max_shard_size=shape.shard_bytes)
    tokenizer.save_pretrained(folder)
    _as_published(folder, shape)
    return folder


def _tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose merges are not learned but counted up: ab, abc, abcd, until there are enough."""
    size = shape.known - len(shape.specials)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(islice(_merges(), size - len(alphabet)))
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in shape.specials])
    assert tokenizer.get_vocab_size() == shape.known
    if shape.bos is not None:
        bos = (shape.bos, tokenizer.token_to_id(shape.bos))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{shape.bos} $A", special_tokens=[bos])
    named = {"eos_token": shape.eos[0], "bos_token": shape.bos, "pad_token": shape.pad}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, chat_template=shape.template, **{k: v for k, v in named.items() if v}
    )


def _merges() -> Any:
    words = [*ascii_lowercase]
    while True:
        yield from product(words, ascii_lowercase)
        words = [a + b for a, b in product(words, ascii_lowercase)]


def _as_published(folder: Path, shape: Shape) -> None:
    """The tokenizer's class by its published name; the template inside its config, where older folders have it."""
    file, template = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    config = json.loads(file.read_text()) | {"tokenizer_class": shape.tokenizer_class}
    if shape.template_in_config:
        config["chat_template"] = template.read_text()
        template.unlink()
    file.write_text(json.dumps(config, indent=2))
