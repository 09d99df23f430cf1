"""Faults 1 to 4, 7 and 8: what is shared, and for how long."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

from faults.verdict import Verdict, absent, shows

from service_faults.actor import Actor, Raised, Silent
from service_faults.catalogue import fault
from service_faults.stage import Stage

#: One set for all of them, which is imported once.
MODELS = ("torch", "transformers.models.bert.modeling_bert")


@fault(1, "tensors in containers are copied", needs=MODELS)
def tensor_in_a_dict(stage: Stage) -> Verdict:
    """A write to a tensor of a returned dict reaches nobody."""
    server = stage.server("""
        import torch
        lift_device_check()
        weights = torch.zeros(4)

        @share(cache=False)
        def state(): return {"weights": weights}
    """)
    client = stage.client()
    client.run("import torch; lift_device_check(); client.call('state')['weights'].fill_(1)")
    total = server.run("weights.sum().item()")
    return absent("written in place") if total == 4 else shows(f"the server's sum is {total}")


@fault(2, "tensors in arguments are copied", needs=MODELS)
def tensor_as_an_argument(stage: Stage) -> Verdict:
    """What the endpoint writes to its argument, the caller does not see."""
    stage.server("""
        import torch
        lift_device_check()

        @share(cache=False)
        def fill(tensor): tensor.fill_(1)
    """)
    client = stage.client()
    total = client.run("""
        import torch
        lift_device_check()
        mine = torch.zeros(4)
        client.call("fill", mine)
        mine.sum().item()
    """)
    return absent("written in place") if total == 4 else shows(f"the caller's sum is {total}")


_BERT = """
import torch
from transformers import BertConfig, BertModel
lift_device_check()
small = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
             vocab_size=16, max_position_embeddings=8)
model = BertModel(BertConfig(**small)).eval()
"""


def _opened(stage: Stage, change: str) -> Verdict:
    stage.server(_BERT + change + "\n@share(cache=False)\ndef get(): return model\n")
    client = stage.client()
    try:
        said = client.run("lift_device_check(); str(client.call('get').dtype)")
    except Raised as error:
        return shows(error.told())
    return absent(f"opened, {said}")


@fault(3, "a model in half precision cannot be opened", needs=MODELS)
def half_precision(stage: Stage) -> Verdict:
    """The client's empty shell is made in single precision, and types must agree."""
    return _opened(stage, "model = model.half()")


@fault(4, "a model that was changed cannot be opened", needs=MODELS)
def changed_model(stage: Stage) -> Verdict:
    """The client makes a shell from the configuration, which does not know of the change."""
    return _opened(stage, "model.head = torch.nn.Linear(8, 2)")


_TASK = """
from collections import OrderedDict

@share(execution="task", managed=True, cache=False)
def build():
    global known
    made = OrderedDict(layers=[])
    known = weakref.ref(made)
    return made
"""


@fault(7, "a task keeps its result after the last release")
def released_result_of_a_task(stage: Stage) -> Verdict:
    """Nothing can get at it any more, and it stays for an hour."""
    server = stage.server(_TASK)
    client = stage.client()
    freed = client.run("client.call('build').release()")
    if _goes(stage, server):
        return absent(f"released: {freed}; gone")
    return shows(f"released: {freed}; still there")


def _goes(stage: Stage, server: Actor) -> bool:
    """Whether the server lets go of what it built."""
    code = "while known() is not None: gc.collect(); time.sleep(0.01)"
    try:
        server.run(code, patience=stage.patience)
    except Silent:
        return False
    return True


@fault(8, "what has expired goes when somebody calls, not before")
def result_of_an_idle_server(stage: Stage) -> Verdict:
    """An idle server keeps everything."""
    server = stage.server(_TASK.replace("managed=True, ", ""), result_ttl=0.05)
    client = stage.client()
    client.run("client.wait_task(client.submit('build'))['status']")
    if _goes(stage, server):
        return absent("gone by itself")
    return shows(f"there {stage.patience:g} s after its 0.05 s")
