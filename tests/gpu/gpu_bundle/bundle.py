"""The folder: what is in it, and how its programs are started."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST = "manifest.json"
SCHEMA = 1
KINDS = ("test", "example", "bench", "soak")


class NoBundle(Exception):
    """The folder is not what it is to be, and why."""


@dataclass
class Program:
    """One program, and what is known of it beforehand."""

    name: str
    kind: str
    file: str
    limit_s: float
    #: Given to it.
    arguments: list[str] = field(default_factory=list)
    #: What its output has to contain.
    says: str = ""
    #: The tests and roles that may use legacy handles.
    legacy: list[str] = field(default_factory=list)
    #: The tests that use two devices, and have to name them.
    several_devices: list[str] = field(default_factory=list)
    #: Processes that one round of a soak kills.
    kills: int = 0
    #: Whether the interpreter runs it.
    is_python: bool = False


@dataclass
class Bundle:
    """The folder, with the wheel unpacked."""

    folder: Path
    scratch: Path
    python: str
    about: dict[str, object]
    programs: list[Program]
    wheel: Path

    @classmethod
    def read(cls, folder: Path, scratch: Path, python: str) -> Bundle:
        """Read the manifest, and unpack the wheel where nothing else is."""
        path = folder / MANIFEST
        try:
            manifest = json.loads(path.read_text())
            if manifest["schema"] != SCHEMA:
                raise NoBundle(f"{path} has the schema {manifest['schema']}, not {SCHEMA}")
            programs = [Program(**each) for each in manifest["programs"]]
            wheel = folder / manifest["wheel"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoBundle(f"{path} cannot be used: {error!r}") from None
        for program in programs:
            if program.kind not in KINDS:
                raise NoBundle(f"{path}: {program.name} is of no known kind, {program.kind!r}")
            file = folder / program.file
            if not file.is_file():
                raise NoBundle(f"{file} is missing")
            # Not every way of carrying a folder keeps its permissions.
            if not os.access(file, os.X_OK):
                with contextlib.suppress(OSError):
                    file.chmod(0o755)
        site = scratch / "wheel"
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        except (OSError, zipfile.BadZipFile) as error:
            raise NoBundle(f"{wheel} cannot be unpacked: {error}") from None
        about = {name: value for name, value in manifest.items() if name != "programs"}
        return cls(folder, scratch, python, about, programs, site)

    def command(self, program: Program, *more: str) -> list[str]:
        """Give the command of a program."""
        path = str(self.folder / program.file)
        start = [self.python, "-B", path] if program.is_python else [path]
        return [*start, *program.arguments, *more]

    def environment(self, **more: str) -> dict[str, str]:
        """Give the environment of every program: the caller's, without detours."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "PYTHONHOME", "ST_SKIPS", "CUDA_IPC_DRIVER")
        }
        return {
            **kept,
            "ST_GPU": "require",
            "ST_PEERS": str(self.folder / "peers"),
            "PYTHONPATH": str(self.wheel),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RUST_BACKTRACE": "1",
            **more,
        }

    def beside_wheel(self) -> str:
        """Give the search path of pytest: the wheel, pytest, and pyshmem.

        Tests show the faults of pyshmem on pyshmem, too. The other peer, which has our name, stays
        apart.
        """
        pyshmem = sorted((self.folder / "peers").glob("pyshmem-*"))
        return os.pathsep.join(map(str, (self.wheel, self.folder / "tools", *pyshmem)))

    def drive(self, module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Give command and environment of a module of this package."""
        path = str(Path(__file__).parent.parent)
        command = [self.python, "-B", "-m", f"{__package__}.{module}", *arguments]
        return command, self.environment(PYTHONPATH=path)
