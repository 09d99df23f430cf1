"""pyshmem: ``park`` is its notify mode, ``spin`` its default, which polls."""

from __future__ import annotations

import pyshmem  # type: ignore[import-untyped]

from .contract import ContractSide

SIDE = ContractSide(pyshmem)
