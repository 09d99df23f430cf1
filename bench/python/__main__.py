"""The probes of the Python half: ``python bench/python CASE SIDE ...`` prints ``name value`` lines.

Values are nanoseconds unless the name ends in ``_hz``, ``_gb_s`` or ``_gflop_s``. A side is a
library in ``sides/``; every probe is a process of its own, and starts a second one where the case
needs two. ``bench/src/plan/python.rs`` says what is measured and compared.
"""

from __future__ import annotations

import importlib
import sys

#: Module and function by the name of the case. Loaded when called: no side pays for another one.
CASES = {
    "floor": ("write_read", "floor"),
    "write-read": ("write_read", "run"),
    "ping-pong": ("ping_pong", "run"),
    "ping-pong-echo": ("ping_pong", "echo"),
    "view-ping-pong": ("ping_pong", "views"),
    "view-ping-pong-echo": ("ping_pong", "views_echo"),
    "in-place": ("in_place", "run"),
    "charges": ("charges", "run"),
    "round-trips": ("rates", "round_trips"),
    "products": ("rates", "products"),
    "service": ("service", "run"),
    "service-server": ("service", "serve"),
    "models": ("models", "run"),
    "models-server": ("models", "serve"),
    "models-first": ("models", "first"),
    "libraries": ("sides", "print_installed"),
}


def main() -> None:
    """Run one case."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in CASES:
        sys.exit(f"`{name}` is no case: use one of {', '.join(CASES)}")
    module, function = CASES[name]
    getattr(importlib.import_module(module), function)(*arguments)


if __name__ == "__main__":
    main()
