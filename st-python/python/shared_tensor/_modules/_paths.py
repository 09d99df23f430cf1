"""Classes and functions by import path, in the strict form.

A dotted walk by ``getattr`` reaches everything: ``torch:os.system`` is an attribute of an attribute
of torch. So a path is a module and a way through *classes* of that module, looked up in their
``__dict__``, and what stands there must say itself that it is defined in that module under that
name.
"""

from __future__ import annotations

import builtins
import importlib
import math
import operator
import re
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import torch

from shared_tensor._modules._errors import Refusal
from shared_tensor._modules._policy import Policy

__all__ = [
    "NATIVE_FUNCTIONS",
    "class_at",
    "class_path",
    "function_at",
    "function_path",
    "is_stdlib",
    "standing_at",
]

_MOVE = "move it into an importable module"
_ALLOW = "name its package in allow= or SHARED_TENSOR_ALLOW if you trust it"

#: Packages whose modules are imported when a class of theirs is met.
_IMPORTED = ("torch", "transformers")

#: Modules whose functions are accepted: those that compute, and none that load, fetch or compile.
_FUNCTION_MODULES = re.compile(
    r"torch\.(nn\.)?functional|torch\.nn\.init|torchvision\.ops\.\w+"
    r"|transformers\.(activations|modeling_rope_utils|models\.\w+\.(modeling|modular)_\w+)"
)

#: Of the standard library, only these classes.
_BUILTIN_CLASSES = frozenset(
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and not issubclass(kind, BaseException) and kind is not type
)
_STDLIB_CLASSES = frozenset(
    {
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("collections", "deque"),
        ("collections", "Counter"),
        ("collections", "UserDict"),
        ("collections", "UserList"),
        ("datetime", "timedelta"),
        ("enum", "Enum"),
        ("functools", "partial"),
        ("types", "SimpleNamespace"),
        ("types", "NoneType"),
    }
)


def _natives() -> dict[tuple[str, str], Any]:
    """Functions of C, which say nothing reliable about where they are defined."""
    found: dict[tuple[str, str], Any] = {}
    spaces = {
        "torch._C._nn": torch._C._nn,
        "torch._C._fft": torch._C._fft,
        "torch._C._special": torch._C._special,
        "torch._C._linalg": torch._C._linalg,
        "math": math,
        "operator": operator,
    }
    # `call` makes a constructor, or any method, out of whatever it is given.
    unwanted = {"methodcaller", "attrgetter", "itemgetter", "setitem", "delitem", "call"}
    for module, space in spaces.items():
        for name, each in vars(space).items():
            is_function = type(each) is types.BuiltinFunctionType and not name.startswith("__")
            if is_function and name not in unwanted:
                found[module, name] = each
    for name in dir(torch._C._VariableFunctions):
        each = getattr(torch._C._VariableFunctions, name)
        is_function = type(each) is types.BuiltinFunctionType and not name.startswith("_")
        if is_function and name not in {"from_file"}:
            found["torch", name] = each
    return found


NATIVE_FUNCTIONS = _natives()
_NATIVE_PATHS: dict[int, tuple[str, str]] = {}
for _path, _function in NATIVE_FUNCTIONS.items():
    _NATIVE_PATHS.setdefault(id(_function), _path)
# The same function under the name that torch gives it.
for _name, _function in vars(torch).items():
    _is_function = type(_function) is types.BuiltinFunctionType
    if _is_function and ("torch", _name) in NATIVE_FUNCTIONS:
        NATIVE_FUNCTIONS["torch", _name] = _function
        _NATIVE_PATHS.setdefault(id(_function), ("torch", _name))


_STDLIB = Path(sysconfig.get_path("stdlib"))


def is_stdlib(module: str) -> bool:
    """Whether a module comes with Python."""
    top = module.partition(".")[0]
    names = getattr(sys, "stdlib_module_names", None)
    if names is not None:
        return top in names
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:
        return top in sys.builtin_module_names
    inside = Path(file)
    return _STDLIB in inside.parents and "site-packages" not in inside.parts


def text_of(kind: type, name: str) -> str | None:
    """Return a text attribute of a class, without its metaclass's code."""
    found = type.__getattribute__(kind, name)
    return found if type(found) is str else None


def class_path(kind: type) -> tuple[str, str]:
    """Where a class is imported from.

    Raises
    ------
    Refusal
        If the path does not lead back to it.
    """
    module, qualname = text_of(kind, "__module__"), text_of(kind, "__qualname__")
    name = f"{module}.{qualname}"
    if module is None or qualname is None or "<locals>" in qualname:
        raise Refusal(f"found a class made inside of a function, {name}", _MOVE)
    if standing_at(module, qualname) is not kind:
        raise Refusal(f"found class {name}, and that name leads to something else", _MOVE)
    return module, qualname


def class_at(module: str, qualname: str, policy: Policy) -> type:
    """Return the class at a path, if it may be used here.

    Raises
    ------
    Refusal
        If there is none, or the policy does not accept it.
    """
    name = f"class {module}.{qualname}"
    if is_stdlib(module) and module != "__main__":
        found = standing_at(module, qualname) if module in sys.modules else None
        if (module, qualname) not in _STDLIB_CLASSES and found not in _BUILTIN_CLASSES:
            raise Refusal(f"{name} is none that an object is made of", "send another object")
    elif module not in sys.modules:
        top = module.partition(".")[0]
        if top not in _IMPORTED and not policy.allows(module):
            raise Refusal(f"{name}: its module is not imported here", f"import it, or {_ALLOW}")
    _load(module, name)
    found = standing_at(module, qualname)
    if not isinstance(found, type):
        raise Refusal(f"{name} does not exist here", "use the same code on both ends")
    if found not in _BUILTIN_CLASSES and text_of(found, "__module__") != module:
        raise Refusal(f"{name} is defined elsewhere", "send it by the module that defines it")
    return found


def function_path(function: Any) -> tuple[str, str]:
    """Where a function is imported from.

    Raises
    ------
    Refusal
        If the path does not lead back to it.
    """
    native = _NATIVE_PATHS.get(id(function))
    if native is not None:
        return native
    module, qualname = function.__module__, function.__qualname__
    name = f"{module}.{qualname}"
    if type(function) is not types.FunctionType:
        raise Refusal(f"found the compiled function {name}", "wrap it in a function of a module")
    if "<lambda>" in qualname:
        raise Refusal("found a lambda", "use a function of a module, or functools.partial")
    if type(module) is not str or "<locals>" in qualname:
        raise Refusal(f"found the function {name}, made inside of another", _MOVE)
    if standing_at(module, qualname) is not function:
        raise Refusal(f"found function {name}, and that name leads to something else", _MOVE)
    return module, qualname


def function_at(module: str, qualname: str, policy: Policy) -> Any:
    """Return the function at a path, if it may be used here.

    Raises
    ------
    Refusal
        If there is none, or the policy does not accept it.
    """
    native = NATIVE_FUNCTIONS.get((module, qualname))
    if native is not None:
        return native
    name = f"function {module}.{qualname}"
    listed = _FUNCTION_MODULES.fullmatch(module) is not None
    if not listed and not policy.allows(module) and module != "__main__":
        raise Refusal(f"{name} is not of a module whose functions are accepted", _ALLOW)
    _load(module, name)
    found = standing_at(module, qualname)
    if type(found) is not types.FunctionType:
        raise Refusal(f"{name} does not exist here", "use the same code on both ends")
    if found.__module__ != module or found.__qualname__ != qualname:
        raise Refusal(f"{name} is defined elsewhere", "send it by the module that defines it")
    return found


def _load(module: str, name: str) -> None:
    if module in sys.modules:
        return
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise Refusal(f"{name}: {error}", "install the same packages on both ends") from error
    except SystemExit as error:
        raise Refusal(f"{name}: its module ends the process", "do not import it") from error


def standing_at(module: str, qualname: str) -> Any:
    """Return what stands in the module, or in a class of it; None if there is nothing."""
    loaded = sys.modules.get(module)
    if not isinstance(loaded, types.ModuleType):
        return None
    space: Any = object.__getattribute__(loaded, "__dict__")
    found: Any = None
    for step in qualname.split("."):
        if space is None or step not in space:
            return None
        found = space[step]
        if type(found) is staticmethod:
            found = found.__func__
        is_class = isinstance(found, type) and text_of(found, "__module__") == module
        space = type.__getattribute__(found, "__dict__") if is_class else None
    return found
