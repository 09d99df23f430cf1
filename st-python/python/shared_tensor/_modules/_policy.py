"""What this process accepts from others."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Policy"]

_VARIABLE = "SHARED_TENSOR_ALLOW"


def _from_environment() -> tuple[str, ...]:
    return tuple(
        name for name in os.environ.get(_VARIABLE, "").replace(":", ",").split(",") if name
    )


@dataclass(frozen=True)
class Policy:
    """What may be sent, and what may be opened.

    Classes are accepted if their module is already imported here, or if their package is torch,
    transformers or one of `allow`. Functions are accepted from a fixed list of modules, from the
    packages of `allow`, and from this program's own script. Importing a module runs its code: that
    is what `allow` allows.

    Parameters
    ----------
    allow : tuple of str
        Packages or modules whose classes and functions are accepted and imported. Those of the
        environment variable SHARED_TENSOR_ALLOW, separated by commas, are added.
    allow_pickle : bool
        Whether what cannot be described travels as a pickle, tensors apart. Both ends must agree.
        Unpickling runs any code that the sender chooses.
    any_version : bool
        Whether versions of packages and sources of classes may differ between the ends.
    meta : bool
        Whether tensors on the meta device are sent. They have no values: a forward pass fails.
    stand_ins : tuple of (str, int)
        Of GPUs that this process does not see, by identity: the numbers of those that read their
        memory here.
    """

    allow: tuple[str, ...] = ()
    allow_pickle: bool = False
    any_version: bool = False
    meta: bool = False
    stand_ins: tuple[tuple[str, int], ...] = ()
    _environment: tuple[str, ...] = field(default_factory=_from_environment, repr=False)

    def __post_init__(self) -> None:
        """Take any sequence of names, and a single one."""
        given: Any = self.allow
        names = (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "allow", names)

    def allows(self, module: str) -> bool:
        """Whether the user named this module or a package that it is in."""
        names = (*self.allow, *self._environment)
        return any(module == name or module.startswith(name + ".") for name in names)
