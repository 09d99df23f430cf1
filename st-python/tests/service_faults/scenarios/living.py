"""Faults 54 to 59: what is run, what is loaded, what is printed."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

from faults.verdict import Verdict, absent, shows

from service_faults.actor import Raised
from service_faults.catalogue import fault
from service_faults.scenarios.sharing import MODELS
from service_faults.stage import Lacking, Stage


class _Touch:
    """What makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


@fault(54, "whoever may connect may run code in the server")
def hostile_frame(stage: Stage) -> Verdict:
    """A request is unpickled before anything is looked at."""
    stage.server("")
    mark = stage.folder / "mark"
    content = pickle.dumps({"method": "ping", "params": _Touch(str(mark))})
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(stage.socket)
        line.sendall(struct.pack("!I", len(content)) + content)
        with contextlib.suppress(OSError):
            # The answer, or the end: it has been looked at.
            line.recv(1)
    return shows("it ran") if mark.exists() else absent("it did not run")


@fault(54, "whoever listens at the path may run code in a client")
def hostile_server(stage: Stage) -> Verdict:
    """An answer is unpickled as well."""
    mark = stage.folder / "mark"
    content = pickle.dumps({"ok": True, "result": _Touch(str(mark))})
    stage.server("")
    place, _ = stage.moved_socket()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        listener.settimeout(30)
        client = stage.client(timeout=5.0)
        client.start("client.call('anything')")
        line, _ = listener.accept()
        with line:
            line.recv(1)
            line.sendall(struct.pack("!I", len(content)) + content)
            with contextlib.suppress(Raised):
                client.result()
    return shows("it ran") if mark.exists() else absent("it did not run")


_PLANTED = """
import torch
from transformers import BertConfig, BertModel

class Planted(BertModel): pass
"""


@fault(55, "a server's source is written down and imported by its clients", needs=MODELS)
def planted_source(stage: Stage) -> Verdict:
    """In a folder that everybody knows, which goes first on sys.path."""
    folder = stage.folder / "server"
    folder.mkdir()
    (folder / "planted.py").write_text(_PLANTED)
    stage.server(f"""
        lift_device_check()
        sys.path.insert(0, {str(folder)!r})
        import planted
        model = planted.Planted(planted.BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
            vocab_size=16, max_position_embeddings=8))

        @share(cache=False)
        def get(): return model
    """)
    client = stage.client()
    said = "opened"
    try:
        client.run("lift_device_check(); client.call('get') is None")
    except Raised as error:
        said = error.told()
    if client.run("'planted' in sys.modules"):
        return shows(f"imported from {client.run('sys.path[0]')}")
    return absent(said)


@fault(57, "the package cannot be imported by Python 3.9")
def oldest_python(stage: Stage) -> Verdict:
    """Which it says that it supports."""
    found = _python_3_9()
    place = stage.actor().run("os.path.dirname(os.path.dirname(shared_tensor.__file__))")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import shared_tensor"
    done = subprocess.run(
        [found, "-c", code + "\nshared_tensor.SharedTensorProvider", place],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return shows(done.stderr.splitlines()[-1]) if done.returncode else absent("imported")


@fault(58, "importing the package loads torch")
def heavy_import(stage: Stage) -> Verdict:
    """And transformers, where it is."""
    loaded = stage.actor().run("IMPORTED")
    heavy = {"torch", "transformers"} & set(loaded)
    return shows(f"loads {', '.join(sorted(heavy))}") if heavy else absent("loads neither")


@fault(59, "every request that fails is printed with its traceback")
def noisy_failure(stage: Stage) -> Verdict:
    """Even with verbose_debug=False."""
    stage.server("@share(cache=False)\ndef fail(): raise ValueError('no')\n")
    client = stage.client()
    heard = stage.side.heard()
    with contextlib.suppress(Raised):
        client.run("client.call('fail')")
    noise = "Traceback" in stage.side.since(heard)
    return shows("the server's traceback") if noise else absent("the caller is told, nobody else")


def _python_3_9() -> str:
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = shutil.which("python3.9")
    for found in [*([named] if named else []), *map(str, kept.glob("3.9.*/bin/python"))]:
        # A name may lead to a script that only says that it is not there.
        if subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    raise Lacking("Python 3.9")
