"""Models to be opened: real sizes, and weights that are whatever is cheapest to make."""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import nn


class Block(nn.Module):
    """Three modules and two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.act = nn.GELU()


def _bert(hidden: int, layers: int) -> Any:
    """Make a Bert of these sizes without filling it: opening does not read the weights."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
    )
    with torch.device("meta"):
        model = BertModel(config)
    return model.to_empty(device="cpu")


def _synthetic() -> Any:
    parts = [nn.Sequential(nn.Linear(16, 16), nn.Identity(), Block()) for _ in range(75)]
    return nn.Sequential(*parts)


MODELS: dict[str, Callable[[], Any]] = {
    "minilm": lambda: _bert(384, 6),
    "bert": lambda: _bert(2048, 12),
    "synthetic": _synthetic,
}
