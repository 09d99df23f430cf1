"""Every sample of torch's own database of modules, in training and evaluation."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from modules.carrier import there_and_back  # noqa: E402
from modules.client import plain  # noqa: E402
from modules.conftest import Coverage  # noqa: E402
from modules.same import differences  # noqa: E402
from shared_tensor._modules import SerializationError  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db


def _samples(info: Any, *, training: bool) -> list[Any]:
    options = {"device": "cpu", "dtype": torch.float32, "requires_grad": False}
    try:
        return list(info.module_inputs_func(info, training=training, **options))
    except Exception as error:
        return [error]


def _forward(module: Any, sample: Any) -> Any:
    """Return the outputs, or the error's text: some samples are there to fail."""
    torch.manual_seed(0)
    given = sample.forward_input
    try:
        arguments = copy.deepcopy((given.args, given.kwargs))
        return plain(module(*arguments[0], **arguments[1]))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("info", module_db, ids=lambda info: info.formatted_name)
def test_comes_through_unchanged(info: Any, training: bool, coverage: Coverage) -> None:  # noqa: FBT001
    """Encoded, opened, encoded again: the same manifest; and the same outputs and buffers."""
    for number, sample in enumerate(_samples(info, training=training)):
        name = f"{info.formatted_name}[{number}]-{'train' if training else 'eval'}"
        if isinstance(sample, Exception):
            coverage.skipped(info.formatted_name, f"torch makes no sample: {sample}")
            continue
        given = sample.constructor_input
        torch.manual_seed(1)
        module = info.module_cls(*given.args, **given.kwargs).train(training)
        try:
            opened = there_and_back(module)
        except SerializationError as error:
            coverage.refused(info.formatted_name, str(error))
            continue
        expected, found = _forward(module, sample), _forward(opened, sample)
        assert differences(expected, found, name) == []
        state = differences(dict(module.state_dict()), dict(opened.state_dict()), name)
        assert state == []
        coverage.passed(name)
