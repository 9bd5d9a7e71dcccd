"""What a model folder is, told by content: whether token ids mean the same, whether the weights are the same ones."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

CHUNK_BYTES = 2**22
NOT_THE_ARCHITECTURE = ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache")


class Fingerprint(BaseModel):
    """SHA-256 of each part; two checkpoints of one model differ in `weights` only."""

    model_config = ConfigDict(frozen=True)

    tokenizer: str
    chat_template: str
    architecture: str
    weights: str


def fingerprint(folder: Path, tokenizer: Any) -> Fingerprint:
    """Of a checked model folder and the tokenizer loaded from it. Reads all weights once."""
    config = json.loads((folder / "config.json").read_text())
    architecture = {key: value for key, value in config.items() if key not in NOT_THE_ARCHITECTURE}
    weights = sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                weights.update(chunk)
    return Fingerprint(
        tokenizer=_hash(_vocabulary(tokenizer)),
        chat_template=_hash(json.dumps(tokenizer.chat_template, sort_keys=True)),
        architecture=_hash(json.dumps(architecture, sort_keys=True)),
        weights=weights.hexdigest(),
    )


def _vocabulary(tokenizer: Any) -> str:
    """Everything that makes ids of text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return f"{text}/{tokenizer.eos_token_id}"


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
