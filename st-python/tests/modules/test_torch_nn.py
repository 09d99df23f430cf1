"""Every class that torch.nn has, found by a program: none is left out by being forgotten."""

from __future__ import annotations

import inspect
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from modules.carrier import there_and_back  # noqa: E402
from modules.conftest import Coverage  # noqa: E402
from shared_tensor._modules import SerializationError  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


def _classes() -> list[type]:
    """Return the public classes of modules in torch.nn and its parts, by their defining module."""
    spaces = [torch.nn, torch.nn.modules, torch.nn.utils.parametrizations]
    found = {
        each
        for space in spaces
        for each in vars(space).values()
        if inspect.isclass(each) and issubclass(each, nn.Module)
    }
    for name, space in vars(torch.nn.modules).items():
        if inspect.ismodule(space) and not name.startswith("_"):
            found |= {
                each
                for each in vars(space).values()
                if inspect.isclass(each)
                and issubclass(each, nn.Module)
                and each.__module__ == space.__name__
                and not each.__name__.startswith("_")
            }
    return sorted(found, key=lambda each: (each.__module__, each.__qualname__))


#: Arguments by the name of a required parameter.
_BY_NAME: dict[str, Any] = {
    "in_features": 6, "out_features": 4, "in1_features": 3, "in2_features": 5, "bias": True,
    "in_channels": 4, "out_channels": 8, "kernel_size": 3, "num_features": 6, "num_channels": 6,
    "num_groups": 3, "normalized_shape": 6, "num_embeddings": 9, "embedding_dim": 4,
    "input_size": 5, "hidden_size": 4, "embed_dim": 8, "num_heads": 2, "d_model": 8, "nhead": 2,
    "num_layers": 2, "padding": 1, "output_size": 2, "upscale_factor": 2, "downscale_factor": 2,
    "size": 6, "dim": 1, "lambd": 0.5, "min_val": -1.0, "max_val": 1.0, "threshold": 0.1,
    "value": 0.2, "cutoffs": [4, 8], "n_classes": 12, "unflattened_size": (2, 3), "p": 0.5,
    "scale_factor": 2, "mode": "RNN_TANH", "num_chunks": 3, "norm_type": 2, "groups": 2,
    "num_classes": 7,
}  # fmt: skip

_BY_CLASS: dict[str, Callable[[], Any]] = {
    "TransformerEncoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2),
    "TransformerDecoder": lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2),
    "Transformer": lambda: nn.Transformer(8, 2, 1, 1, 16),
    "FractionalMaxPool2d": lambda: nn.FractionalMaxPool2d(3, output_size=2),
    "FractionalMaxPool3d": lambda: nn.FractionalMaxPool3d(3, output_size=2),
    "AdaptiveLogSoftmaxWithLoss": lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 12, [4, 8]),
    "Sequential": lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU()),
    "ModuleList": lambda: nn.ModuleList([nn.Linear(2, 3), nn.ReLU()]),
    "ModuleDict": lambda: nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.ReLU()}),
    "ParameterList": lambda: nn.ParameterList([nn.Parameter(torch.ones(2)), torch.zeros(3)]),
    "ParameterDict": lambda: nn.ParameterDict({"a": torch.ones(2), "b": torch.zeros(3)}),
    "TripletMarginWithDistanceLoss": lambda: nn.TripletMarginWithDistanceLoss(
        distance_function=nn.PairwiseDistance()
    ),
    "CrossMapLRN2d": lambda: nn.CrossMapLRN2d(3),
    "Unflatten": lambda: nn.Unflatten(1, (2, 3)),
    "RNN": lambda: nn.RNN(5, 4, 2, bidirectional=True),
    "GRU": lambda: nn.GRU(5, 4, 2),
    "LSTM": lambda: nn.LSTM(5, 4, 2, proj_size=3),
    "DataParallel": lambda: nn.DataParallel(nn.Linear(2, 3)),
    "_SpectralNorm": lambda: nn.utils.parametrizations.spectral_norm(
        nn.Linear(4, 3)
    ).parametrizations.weight[0],
    "_Orthogonal": lambda: nn.utils.parametrizations.orthogonal(
        nn.Linear(4, 3)
    ).parametrizations.weight[0],
    "RNNCell": lambda: nn.RNNCell(5, 4),
}

#: There are no objects of these: they are what others derive from.
_ABSTRACT = frozenset({"Container", "RNNBase", "RNNCellBase"})


def _make(kind: type) -> Any:
    if kind.__name__ in _BY_CLASS:
        return _BY_CLASS[kind.__name__]()
    arguments = {}
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            arguments[parameter.name] = _BY_NAME[parameter.name]
    return kind(**arguments)


@pytest.mark.parametrize("kind", _classes(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_class_comes_through(kind: type, coverage: Coverage) -> None:
    """Each class of torch.nn, in training and evaluation."""
    if kind.__name__ in _ABSTRACT:
        coverage.skipped(kind.__name__, "abstract: there are no objects of it")
        return
    try:
        module = _make(kind)
    except Exception as error:
        coverage.skipped(kind.__name__, f"cannot be made: {type(error).__name__}: {error}")
        return
    for training in (True, False):
        try:
            opened = there_and_back(module.train(training))
        except SerializationError as error:
            coverage.refused(kind.__name__, str(error))
            return
        assert type(opened).__name__ == kind.__name__
        assert repr(opened) == repr(module)
    coverage.passed(kind.__name__)
