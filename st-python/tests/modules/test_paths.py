"""What a manifest may name, and what it may not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from modules.conftest import TESTS  # noqa: E402
from shared_tensor._modules import Opener, Policy, SerializationError, encode  # noqa: E402
from shared_tensor._native import ManifestBuilder  # noqa: E402

pytestmark = pytest.mark.cpu

FUNCTIONS = [
    "torch:os.system",
    "torch:sys.exit",
    "torch:hub.load",
    "torch.hub:load",
    "torch:ops.load_library",
    "torch:load",
    "torch.serialization:load",
    "torch.serialization:save",
    "torch._inductor.codecache:subprocess.check_output",
    "torch.utils.cpp_extension:load",
    "torch.utils.cpp_extension:load_inline",
    "torch.utils.model_zoo:load_url",
    "torch.nn.functional:torch.load",
    "torch.nn.functional:os.system",
    "torch.nn.functional:importlib.import_module",
    "torch.nn.init:warnings.warn",
    "torch.package.package_importer:PackageImporter.import_module",
    "torch.multiprocessing.spawn:spawn",
    "os:system",
    "posix:system",
    "subprocess:run",
    "builtins:eval",
    "builtins:exec",
    "builtins:__import__",
    "builtins:getattr",
    "builtins:open",
    "importlib:import_module",
    "pickle:loads",
    "_pickle:loads",
    "marshal:loads",
    "shutil:rmtree",
    "runpy:run_path",
    "ctypes:CDLL.__init__",
    "operator:methodcaller",
    "operator:attrgetter",
    "operator:itemgetter",
    "functools:reduce",
    "transformers.dynamic_module_utils:get_class_from_dynamic_module",
    "shared_tensor._modules._skeleton:unpickled",
    "shared_tensor._native:create_region",
    "transformers.models.auto.auto_factory:_get_model_class",
    "transformers.models.bert.convert_bert_original_tf_checkpoint_to_pytorch:main",
    "transformers.integrations.hub_kernels:load_and_register_attn_kernel",
    "torch.nn.functional.os:system",
    "antigravity:fly",
    "this_package_does_not_exist:f",
    "torch.nn.functional:<lambda>",
    "torch.nn.functional:",
    ":",
    "torch.nn.functional:__builtins__.eval",
    "torch.nn.functional:__loader__.load_module",
    "torch.nn.functional:Tensor.__class__",
]

CLASSES = [
    "os:_wrap_close",
    "subprocess:Popen",
    "threading:Thread",
    "socket:socket",
    "io:FileIO",
    "builtins:type",
    "builtins:Exception",
    "pathlib:Path",
    "tempfile:TemporaryDirectory",
    "ctypes:CDLL",
    "importlib.machinery:SourceFileLoader",
    "functools:cached_property",
    "types:FunctionType",
    "types:CodeType",
    "types:ModuleType",
    "torch:os.PathLike",
    "torch.nn:os.PathLike",
    "torch.nn.modules.linear:torch.Tensor",
    "torch.nn:Linear",
    "xmlrpc.client:ServerProxy",
    "no_such_package.module:Class",
    "torch.nn.modules.linear:Linear.forward",
    "torch.nn.modules.linear:init",
    "torch.nn.modules.linear:__builtins__",
]


def built(make: Callable[[ManifestBuilder], int]) -> bytes:
    """Return a manifest that no encoder of ours would make."""
    builder = ManifestBuilder()
    return builder.finish(make(builder))[0]


def parts(path: str) -> tuple[str, str]:
    """Return module and qualified name."""
    module, _, qualname = path.partition(":")
    return module, qualname


@pytest.mark.parametrize("path", FUNCTIONS)
def test_such_functions_are_refused(path: str) -> None:
    """None of them is resolved, and no module is imported for the attempt."""
    manifest = built(lambda builder: builder.function(*parts(path)))
    before = set(sys.modules)
    with pytest.raises(SerializationError):
        Opener(manifest)
    assert set(sys.modules) == before


@pytest.mark.parametrize("path", CLASSES)
def test_such_classes_are_refused(path: str) -> None:
    """Neither as values nor as the class of an object."""

    def instance(builder: ManifestBuilder) -> int:
        number, value = builder.reserve_object()
        builder.fill_instance(number, *parts(path), [], [])
        return value

    before = set(sys.modules)
    for manifest in (built(lambda builder: builder.class_(*parts(path))), built(instance)):
        with pytest.raises(SerializationError):
            Opener(manifest)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "path", ["builtins:int", "builtins:dict", "torch._tensor:Tensor", "builtins:str"]
)
def test_no_instances_of_built_in_types(path: str) -> None:
    """They may be named, and are not made by ``object.__new__``."""

    def instance(builder: ManifestBuilder) -> int:
        number, value = builder.reserve_object()
        builder.fill_instance(number, *parts(path), [], [])
        return value

    with pytest.raises(SerializationError):
        Opener(built(instance))


@pytest.mark.parametrize("builder_name", ["pickle"])
def test_pickle_is_refused_unless_asked_for(builder_name: str) -> None:
    """A manifest cannot ask for it by itself."""

    def make(builder: ManifestBuilder) -> int:
        data = builder.atom(b"cos\nsystem\n(S'true'\ntR.")
        return builder.built(builder_name, [data, builder.sequence("tuple", [])])

    with pytest.raises(SerializationError, match="allow_pickle=True"):
        Opener(built(make)).open([])


def test_a_package_is_allowed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that nobody imported are imported only if the user names them."""
    (tmp_path / "st_example_package.py").write_text(
        "import torch\nclass Own(torch.nn.Module): pass\ndef act(x): return x + 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code = (
        "import sys; from shared_tensor._modules import encode; import st_example_package as it;"
        "own = it.Own(); own.act = it.act; sys.stdout.write(encode(own).manifest.hex())"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{TESTS}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    manifest = bytes.fromhex(done.stdout)
    with pytest.raises(SerializationError, match="SHARED_TENSOR_ALLOW"):
        Opener(manifest)
    assert "st_example_package" not in sys.modules
    try:
        opened = Opener(manifest, Policy(allow=("st_example_package",))).open([])
        assert opened.act(1) == 2
        monkeypatch.setenv("SHARED_TENSOR_ALLOW", "st_example_package")
        Opener(manifest).open([])
        (tmp_path / "st_example_package.py").write_text("import torch\n# changed\n")
        with pytest.raises(SerializationError, match=r"differs.*st_example_package\.py.*here is"):
            Opener(manifest)
        Opener(manifest, Policy(any_version=True)).open([])
    finally:
        sys.modules.pop("st_example_package", None)


SCRIPT = """
import sys, torch
from shared_tensor._modules import Opener, encode

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Net.Inner()
        self.act = double
    class Inner(torch.nn.Module):
        pass
    def forward(self, x):
        return self.act(x)

def double(x):
    return 2 * x

if sys.argv[1] == "server":
    sys.stdout.write(encode(Net()).manifest.hex())
else:
    net = Opener(bytes.fromhex(sys.argv[2])).open([])
    assert type(net) is Net and type(net.inner) is Net.Inner, type(net)
    sys.stdout.write(str(net(21)))
"""


def script(path: Path, *arguments: str) -> Any:
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(path), *arguments], capture_output=True, text=True
    )


def test_classes_of_one_script_on_both_ends(tmp_path: Path) -> None:
    """A script that is server and client finds its own classes; another version of it is told."""
    first, second = tmp_path / "app.py", tmp_path / "other.py"
    first.write_text(SCRIPT)
    manifest = script(first, "server").stdout
    assert script(first, "client", manifest).stdout == "42"
    second.write_text(SCRIPT.replace("2 * x", "3 * x"))
    told = script(second, "client", manifest).stderr
    assert "app.py" in told, told
    assert "other.py" in told, told


def test_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another torch is an error that can be overridden; what a newer one expects is added then."""
    module = torch.nn.ReLU()
    object.__getattribute__(module, "__dict__").pop("_is_full_backward_hook")
    monkeypatch.setattr(torch, "__version__", "1.0")
    manifest = encode(module).manifest
    monkeypatch.undo()
    with pytest.raises(SerializationError, match=r"torch 1\.0, and here is .*any_version=True"):
        Opener(manifest)
    opened = Opener(manifest, Policy(any_version=True)).open([])
    assert opened._is_full_backward_hook is None


def test_registries_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way to compute that is registered by name must be registered here."""
    pytest.importorskip("transformers.modeling_utils")

    def make(builder: ManifestBuilder) -> int:
        builder.requirement("transformers.attention", "my_own_kernel")
        return builder.atom(None)

    with pytest.raises(SerializationError, match="my_own_kernel"):
        Opener(built(make))
