"""What a model's config.json says, also inside its `text_config`: context window, cache size."""

from typing import Any

import pytest

from orchestrator.commands.eval.config import model_window
from orchestrator.inputs.model_config import CacheShape, kv_bytes_per_token, kv_cache_gib, round_up_gib
from rollout_workers.engine import batched_tokens, check_limits, context_window
from sdpo.config import RunConfig
from sdpo.errors import ConfigError

CONFIG = RunConfig.model_validate({"model": {"max_model_len_tokens": 4096, "dtype": "bfloat16"}})


@pytest.mark.parametrize("nested", [False, True])
def test_train_and_eval_read_the_same_context_window(nested: bool) -> None:
    def model(**sizes: Any) -> dict[str, Any]:
        return {"model_type": "gemma3", "text_config": sizes} if nested else sizes

    assert context_window(model(max_position_embeddings=2048)) == model_window(model(max_position_embeddings=2048))
    check_limits(CONFIG, model(max_position_embeddings=4096))
    check_limits(CONFIG, model(hidden_size=8))
    with pytest.raises(ConfigError, match=r"model\.max_model_len_tokens=4096: allowed: at most 2048"):
        check_limits(CONFIG, model(max_position_embeddings=2048))


def test_a_cache_holds_whole_blocks_and_one_more_of_every_sequence() -> None:
    shape = CacheShape.of({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64})
    assert (shape.num_layers, shape.key_size) == (2, 64)
    assert kv_bytes_per_token(CONFIG, shape) == 2 * 2 * 64 * 2
    one = kv_cache_gib(CONFIG, shape, 1)
    assert one * 2**30 == (4096 + 128) * 512
    assert kv_cache_gib(CONFIG, shape, 16) == 16 * one
    assert round_up_gib(0.1231) == 0.124


def test_a_forward_pass_takes_a_whole_window() -> None:
    assert batched_tokens(CONFIG) == 4096
    long = RunConfig.model_validate({"model": {"max_model_len_tokens": 32768}})
    assert batched_tokens(long) == 32768
