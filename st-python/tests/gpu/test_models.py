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


def test_a_storage_that_was_resized_is_lent_as_it_is(torch: Any, served: Served) -> None:
    """Other pieces of expandable segments may lie at the address where it was lent before."""
    server = served.server(
        """
value = torch.arange(16 << 20, device=device, dtype=torch.float32)

@share(cache=False)
def lent():
    return value
""",
        PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True",
    )
    client = served.client()
    came = client.call("lent")
    assert float(came[-1]) == (16 << 20) - 1
    server.run(
        """
storage = value.untyped_storage()
bytes_ = storage.nbytes()
storage.resize_(0)
torch.cuda.synchronize()
torch.cuda.empty_cache()
storage.resize_(bytes_)
value.fill_(7.0)
"""
    )
    again = client.call("lent")
    assert float(again.min()) == float(again.max()) == 7.0
    del torch


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
    client = served.client()
    came = client.call("lent")
    assert server.run("weights.data_ptr() == where")
    assert client.call("lent").data_ptr() == came.data_ptr(), "lent again, it is the same"
    assert int(came[-1]) == (48 << 20) - 1
    assert torch.equal(came, torch.arange(48 << 20, device="cuda", dtype=torch.int32))
    came[5] = -3
    torch.cuda.synchronize()
    assert server.run("int(weights[5])") == -3


SENTENCES = """
import transformers

def built():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=512, vocab_size=30522)
    return transformers.BertModel(config).to(device).eval()

kept = built()

@share
def sentences():
    return kept

def embedded():
    ids = torch.arange(1000, 1032, device=device).reshape(2, 16)
    with torch.no_grad():
        return kept(ids).last_hidden_state.mean(1).flatten().tolist()
"""


def test_minilm_embeds_as_on_the_server(torch: Any, served: Served) -> None:
    """Its architecture with seeded weights; `test_minilm` has the real ones."""
    pytest.importorskip("transformers")
    server = served.server(SENTENCES)
    model = served.client().call("sentences")
    assert sum(it.numel() for it in model.parameters()) == 22_713_216
    ids = torch.arange(1000, 1032, device="cuda").reshape(2, 16)
    with torch.no_grad():
        found = model(ids).last_hidden_state.mean(1)
    assert found.flatten().tolist() == server.run("embedded()")


def test_what_a_large_model_moved_from_is_free(torch: Any, served: Served) -> None:
    """Of 1 GiB and more torch gives the old place back: the model is not there twice."""
    server = served.server(
        """
made = torch.nn.ModuleList(
    torch.nn.Linear(8192, 8192, bias=False, device=device) for _ in range(8))
bytes_of = sum(it.nbytes for it in made.parameters())
torch.cuda.synchronize()
free = torch.cuda.mem_get_info()[0]

@share
def large():
    return made
"""
    )
    model = served.client().call("large")
    bytes_of, before = server.run("bytes_of"), server.run("free")
    assert bytes_of == 2 << 30
    taken = before - server.run("torch.cuda.mem_get_info()[0]")
    # The client's context is among it, and its kernels.
    assert taken < bytes_of - (512 << 20), f"{taken} bytes more than before it was lent"
    assert server.run("torch.cuda.memory_reserved()") < bytes_of
    assert torch.equal(
        model[7].weight[:2].cpu(), torch.tensor(server.run("made[7].weight[:2].tolist()"))
    )
