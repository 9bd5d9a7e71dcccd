"""Ways to shard parameters, gradients and AdamW over ranks."""
