"""Modules on a GPU, between two processes."""

from __future__ import annotations

from typing import Any

import pytest

from gpu.served import Served

pytestmark = pytest.mark.gpu

BERT = """
import transformers

models = {}

@share(key="arguments")
def bert(hidden, layers, dtype):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden)
    with device:
        model = transformers.BertModel(config)
    models[dtype] = model.to(getattr(torch, dtype)).eval()
    return models[dtype]

def computed(dtype):
    model = models[dtype]
    with torch.no_grad():
        out = model(torch.arange(16, device=device)[None]).last_hidden_state
    return out.float().flatten()[:512].tolist()
"""


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_model_computes_what_the_servers_does(torch: Any, served: Served, dtype: str) -> None:
    """Bit for bit, and its weights are the server's."""
    pytest.importorskip("transformers")
    server = served.server(BERT)
    client = served.client()
    model = client.call("bert", 256, 2, dtype)
    with torch.no_grad():
        out = model(torch.arange(16, device="cuda")[None]).last_hidden_state
    assert out.float().flatten()[:512].tolist() == server.run(f"computed({dtype!r})")
    again = client.call("bert", 256, 2, dtype)
    pairs = zip(model.parameters(), again.parameters())
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)
    buffers = list(zip(model.buffers(), again.buffers()))
    assert buffers, "each object has buffers of its own"
    assert all(one.data_ptr() != other.data_ptr() for one, other in buffers)


def test_buffers_can_be_written_to(torch: Any, served: Served) -> None:
    """A module in training mode counts in buffers of its own."""
    server = served.server(
        """
made = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8)).to(device).train()

@share
def normed():
    return made
"""
    )
    model = served.client().call("normed")
    with torch.no_grad():
        model(torch.randn(32, 8, device="cuda"))
    torch.cuda.synchronize()
    assert int(model[1].num_batches_tracked) == 1
    assert server.run("int(made[1].num_batches_tracked)") == 0


def test_parameters_that_their_module_writes_are_private(torch: Any, served: Served) -> None:
    """An embedding with a largest norm renormalises rows while it looks them up."""
    server = served.server(
        """
made = torch.nn.Embedding(8, 4, max_norm=0.5).to(device).eval()

@share
def limited():
    return made
"""
    )
    # A write to what is shared would end CUDA for whoever runs this.
    reader = served.peer()
    norms = """
model = call("limited")
found = model(torch.arange(8, device=device))
[float(it.norm(dim=1).max()) for it in (found, model.weight.detach())]
"""
    assert max(reader.run(norms)) <= 0.5001
    assert server.run("float(made.weight.norm(dim=1).max())") > 0.6


def test_a_module_is_trained_by_another_process(torch: Any, served: Served) -> None:
    """`writable=True` shares parameters for writing, with their gradients apart."""
    server = served.server(
        """
made = torch.nn.Linear(4, 1).to(device)

@share(writable=True)
def linear():
    return made
"""
    )
    model = served.client().call("linear")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, wanted = torch.randn(64, 4, device="cuda"), torch.ones(64, 1, device="cuda")
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(inputs) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert server.run("made.weight.flatten().tolist()") == model.weight.detach().flatten().tolist()


def test_an_open_model_survives_its_server(torch: Any, served: Served) -> None:
    """It goes on to compute when the server was killed."""
    pytest.importorskip("transformers")
    server = served.server(BERT)
    model = served.client().call("bert", 256, 2, "float32")
    ids = torch.arange(16, device="cuda")[None]
    with torch.no_grad():
        before = model(ids).last_hidden_state.clone()
        server.kill()
        assert torch.equal(model(ids).last_hidden_state, before)


def test_expandable_segments_are_lent_where_they_are(torch: Any, served: Served) -> None:
    """Memory that torch's allocator made to be shared is not moved."""
    server = served.server(
        """
weights = torch.arange(48 << 20, device=device, dtype=torch.int32)
where = weights.data_ptr()

@share(cache=False)
def lent():
    return weights
""",
        PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True",
    )
    came = served.client().call("lent")
    assert server.run("weights.data_ptr() == where")
    assert int(came[-1]) == (48 << 20) - 1
    assert torch.equal(came, torch.arange(48 << 20, device="cuda", dtype=torch.int32))
    came[5] = -3
    torch.cuda.synchronize()
    assert server.run("int(weights[5])") == -3
