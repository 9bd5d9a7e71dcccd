"""Digests of a model folder: whether two models share tokenizer, chat template, architecture and weights."""

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from rollout_workers.weight_files import weight_files

if TYPE_CHECKING:
    from hashlib import _Hash as Hash  # its name where types are checked only

CHUNK_BYTES = 2**22
NOT_THE_ARCHITECTURE = ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache")
"""Keys of config.json that do not belong to the architecture."""

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
WHOLE_FILE_BYTES, BLOCK_BYTES = 2**28, 2**14
"""Of a larger weight file blocks of this size are compared when a run is resumed."""


class Fingerprint(BaseModel):
    """SHA-256 of each part of a model; two checkpoints of one model differ in `weights` only."""

    model_config = ConfigDict(frozen=True)

    tokenizer: str
    chat_template: str
    architecture: str
    weights: str


def fingerprint(folder: Path, tokenizer: Any) -> Fingerprint:
    """Return the fingerprint of a checked model folder and the tokenizer loaded from it. Reads all weights once."""
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


def model_digests(folder: Path) -> dict[str, str]:
    """Return by part ("model weights", "model config", "model tokenizer") a digest of what a run begins with.

    A resumed run is compared with them, and a start must not take minutes: of a weight file above `WHOLE_FILE_BYTES`
    its header and three blocks of each tensor are read (first, middle, last), which other weights do not share.
    """
    weights, config = sha256(), json.loads((folder / "config.json").read_text())
    for file in weight_files(folder):
        _add_weights(weights, file)
    architecture = {key: value for key, value in config.items() if key not in NOT_THE_ARCHITECTURE}
    tokenizer = sha256()
    for name in TOKENIZER_FILES:
        if (file := folder / name).is_file():
            tokenizer.update(f"{name}\0".encode() + file.read_bytes())
    return {
        "model weights": weights.hexdigest(),
        "model config": _hash(json.dumps(architecture, sort_keys=True)),
        "model tokenizer": tokenizer.hexdigest(),
    }


def _add_weights(digest: "Hash", file: Path) -> None:
    """Add a safetensors file: its size in bytes, its header, and its tensors' blocks."""
    num_bytes = file.stat().st_size
    digest.update(f"{num_bytes}\0".encode())
    with file.open("rb") as opened:
        if num_bytes <= WHOLE_FILE_BYTES:
            while chunk := opened.read(CHUNK_BYTES):
                digest.update(chunk)
            return
        header = opened.read(int.from_bytes(opened.read(8), "little"))
        digest.update(header)
        begin_of_data = opened.tell()
        tensors = [value for name, value in json.loads(header).items() if name != "__metadata__"]
        for begin, end in sorted(tuple(tensor["data_offsets"]) for tensor in tensors):
            for offset in (begin, (begin + end) // 2, max(begin, end - BLOCK_BYTES)):
                opened.seek(begin_of_data + offset)
                digest.update(opened.read(min(BLOCK_BYTES, end - offset)))


def _vocabulary(tokenizer: Any) -> str:
    """Return a text that is equal for tokenizers that give every text the same ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return f"{text}/{tokenizer.eos_token_id}"


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
