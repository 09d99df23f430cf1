"""Versions of packages and sources of classes: the code itself is not sent."""

from __future__ import annotations

import hashlib
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_tensor._modules._errors import Refusal, SerializationError
from shared_tensor._modules._paths import is_stdlib

if TYPE_CHECKING:
    from shared_tensor._native import ManifestBuilder

__all__ = ["Origin", "verify"]

_hashes: dict[tuple[str, int, int], bytes] = {}


def _version(package: str) -> str | None:
    found = getattr(sys.modules.get(package), "__version__", None)
    if found is not None:
        return str(found)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _source(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if isinstance(file, str) and file.endswith(".py") else None


def _hash(path: Path) -> bytes:
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size)
    found = _hashes.get(key)
    if found is None:
        found = _hashes[key] = hashlib.sha256(path.read_bytes()).digest()
    return found


class Origin:
    """Collects what the classes and functions of one object come from."""

    def __init__(self, builder: ManifestBuilder) -> None:
        self._builder = builder
        self._seen: set[str] = set()

    def note(self, module: str, *, is_base: bool = False) -> None:
        """Remember the package of a module, or its source if it is of none.

        Parameters
        ----------
        module : str
            Where a class or function is defined.
        is_base : bool
            Whether only a base of a class is: it runs as well, and may be without a source.

        Raises
        ------
        Refusal
            If there is neither.
        """
        if module in self._seen:
            return
        self._seen.add(module)
        package = module.partition(".")[0]
        if module != "__main__":
            if is_stdlib(module):
                return
            version = _version(package)
            if version is not None:
                self._builder.package(package, version)
                return
        path = _source(module)
        if path is None:
            if is_base:
                return
            raise Refusal(
                f"module {module} has no source file", "move what is used of it into a file"
            )
        self._builder.source(module, str(path), _hash(path))


def verify(origin: Any, *, any_version: bool) -> None:
    """Compare with what is here, once everything is imported.

    Raises
    ------
    SerializationError
        For the first difference.
    """
    packages, sources, _, _ = origin
    if any_version:
        return
    for package, version in packages:
        own = _version(package)
        if own != version:
            raise SerializationError(
                f"this was encoded with {package} {version}, and here is "
                f"{'none' if own is None else own}: use one version on both ends, or accept the "
                "difference with any_version=True"
            )
    for module, file, digest in sources:
        path = _source(module)
        if path is None:
            raise SerializationError(
                f"module {module} was loaded from {file} by the sender, and has no source file "
                "here: use the same code on both ends, or accept the difference with "
                "any_version=True"
            )
        if _hash(path) != bytes(digest):
            raise SerializationError(
                f"module {module} differs: the sender has {file}, here is {path}: use the same "
                "code on both ends, or accept the difference with any_version=True"
            )
