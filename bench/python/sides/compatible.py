"""shared-tensor's compatible module: what a program gets that changes its import."""

from __future__ import annotations

from shared_tensor import streams

from .contract import ContractSide

SIDE = ContractSide(streams)
