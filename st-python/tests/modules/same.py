"""Whether two nested results are the same to the bit."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["differences"]


def differences(expected: Any, found: Any, place: str) -> list[str]:
    """Where two results differ, in words."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(found, torch.Tensor):
            return [f"{place}: a tensor, and {type(found).__name__}"]
        if (expected.dtype, expected.shape) != (found.dtype, found.shape):
            return [
                f"{place}: {expected.dtype} {tuple(expected.shape)}, "
                f"and {found.dtype} {tuple(found.shape)}"
            ]
        if expected.is_quantized or found.is_quantized:
            expected, found = expected.int_repr(), found.int_repr()
        left = torch.nan_to_num(expected.to_dense()) if expected.is_floating_point() else expected
        right = torch.nan_to_num(found.to_dense()) if found.is_floating_point() else found
        return [] if torch.equal(left.detach(), right.detach()) else [f"{place}: other values"]
    if isinstance(expected, dict):
        if list(expected) != list(found):
            return [f"{place}: keys {list(expected)}, and {list(found)}"]
        items = [(f"{place}.{key}", expected[key], found[key]) for key in expected]
        return [each for name, one, other in items for each in differences(one, other, name)]
    if isinstance(expected, (list, tuple)):
        if len(expected) != len(found):
            return [f"{place}: {len(expected)} items, and {len(found)}"]
        pairs = enumerate(zip(expected, found))
        return [
            each for i, (one, other) in pairs for each in differences(one, other, f"{place}[{i}]")
        ]
    return [] if expected == found else [f"{place}: {expected!r}, and {found!r}"]
