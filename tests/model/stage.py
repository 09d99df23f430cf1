"""What happens, in order, and what has to be true of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import minilm
from sentences import CLOSER, SENTENCES

from shared_tensor import SharedTensorClient

HERE = Path(__file__).parent
#: No answer takes that long: it only ends what hangs.
WATCHDOG_S = 300


class Wrong(Exception):
    """Something is not as it has to be."""


def require(what: str, *, holds: bool) -> None:
    """Go on only if it is so."""
    if not holds:
        raise Wrong(f"it is not so that {what}")


def say(line: str) -> None:
    """Show a line."""
    print(f"  {line}", flush=True)


class Role:
    """Another process, spoken to in lines."""

    def __init__(self, program: str, base_path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / program), base_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Say a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Hear a line of it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Wrong(f"process {self.pid} ended with {self._process.wait()}")
        return line.strip()

    def ask(self, line: str) -> Any:
        """Say a line and hear the answer."""
        self.tell(line)
        return json.loads(self.hear())

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """Let it end, or end it."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


class Stage:
    """One server, several clients, and what is seen of them."""

    def __init__(self, folder: Path, clients: int) -> None:
        self._base_path = str(folder / "demo")
        self._number = clients
        self._roles: list[Role] = []
        self._model_bytes = 0

    def play(self) -> None:
        """Play it all."""
        signal.alarm(WATCHDOG_S)
        try:
            self._play()
        finally:
            for role in self._roles:
                role.end()

    def _role(self, program: str) -> Role:
        role = Role(program, self._base_path)
        self._roles.append(role)
        return role

    def _play(self) -> None:
        # Its libraries are shared by all processes, and are to be so from the beginning.
        minilm.embed(minilm.build_small(), minilm.tokenizer(), SENTENCES)
        self._model_bytes = minilm.bytes_of_weights()
        kind = "seeded weights, as the package with the real ones is not there"
        if minilm.folder() is not None:
            kind = "its real weights"
        size = f"{self._model_bytes / 1e6:.0f} MB"
        say(f"MiniLM, {size}, {kind}; {len(SENTENCES)} sentences")
        server = self._role("server.py")
        require("the server starts", holds=server.hear() == "ready")
        clients = [self._role("client.py") for _ in range(self._number)]
        for client in clients:
            require("a client starts", holds=json.loads(client.hear()) == "ready")
        say(f"a server, {os.getpid()} watching, and {len(clients)} clients")
        for client in clients:
            client.ask("prepare")
        with SharedTensorClient(self._base_path, device="cpu") as own:
            own.call("prepare")
            before = self._weighed(own, clients)
            self._open_together(clients)
            known = own.call("known")
            require("the model is built once", holds=known["builds"] == 1)
            say(f"built once, in {known['seconds']:.2f} s, for {len(clients)} clients at once")
            embedded = self._embed(clients, own.call("embedded_by_the_server"))
            self._weigh(before, self._weighed(own, clients))
            self._reopen(clients[0])
            self._kill_one(clients, embedded, own)

    def _open_together(self, clients: list[Role]) -> None:
        for client in clients:
            client.tell("open")
        opened = [json.loads(client.hear()) for client in clients]
        slowest = max(answer["seconds"] for answer in opened)
        notes = max((answer["progress"] for answer in opened), key=len)
        say(f"all have it after {slowest:.2f} s; on the way they saw: {', '.join(notes) or '-'}")

    def _embed(self, clients: list[Role], expected: Any) -> list[list[int]]:
        import torch

        for client in clients:
            client.tell("embed")
        embedded = [json.loads(client.hear()) for client in clients]
        bits = expected.view(torch.int32).tolist()
        for answer in embedded:
            require("a client embeds as the server", holds=answer == bits)
        say(f"{len(clients)} x {len(SENTENCES)} sentences embedded, every bit as by the server")
        if minilm.folder() is None:
            say("seeded weights know nothing of sentences: what comes out alike is not looked at")
            return embedded
        alike = expected @ expected.T
        for one, other, third in CLOSER:
            holds = bool(alike[one, other] > alike[one, third])
            require(f"sentences {one} and {other} are closer than {one} and {third}", holds=holds)
        say(
            f"alike: {alike[0, 1]:.2f} two naps, {alike[2, 3]:.2f} two loans, "
            f"{alike[0, 2]:.2f} a nap and a loan"
        )
        return embedded

    def _weighed(self, own: SharedTensorClient, clients: list[Role]) -> list[dict[str, int]]:
        """Weigh the server, then the clients."""
        return [own.call("weigh"), *(client.ask("weigh") for client in clients)]

    def _weigh(self, before: list[dict[str, int]], after: list[dict[str, int]]) -> None:
        """Compare what all hold with what they held before there was a model.

        Counted is what is in use, with garbage collected and the allocator's reserve given back,
        and what the processes share is counted once. Files that are mapped, libraries, are shown
        and not counted: they are no part of a model, and the kernel can drop them.
        """
        grown = [
            {name: now[name] - then[name] for name in then} for then, now in zip(before, after)
        ]
        clients = grown[1:]
        names = ["server", *(f"client {number}" for number in range(len(clients)))]
        for name, each in zip(names, grown):
            say(
                f"{name}: regions {each['regions'] / 1e6:+.1f} MB (its share), "
                f"memory of its own {each['written'] / 1e6:+.2f} MB, "
                f"pages of libraries {each['files'] / 1e6:+.2f} MB"
            )
        own = max(each["own"] for each in clients)
        say(
            f"private memory of a client grew by {own / 1e6:.2f} MB at most, {self._share(own):.1%}"
        )
        require("that is less than 5 % of the model", holds=self._share(own) < 0.05)
        together = sum(each["regions"] + each["written"] for each in grown)
        reserved = together + sum(now["reserved"] - now["written"] for now in after)
        say(
            f"all processes together grew by {self._share(together):.3f} models, "
            f"{self._share(reserved):.3f} with what their allocators keep for later"
        )
        require("that is at most 1.05 models", holds=self._share(together) <= 1.05)

    def _share(self, count: int) -> float:
        return count / self._model_bytes

    def _reopen(self, client: Role) -> None:
        times = client.ask("reopen")
        say(f"opened again in {times['median'] * 1e3:.2f} ms (worst {times['worst'] * 1e3:.2f})")

    def _kill_one(
        self, clients: list[Role], embedded: list[list[int]], own: SharedTensorClient
    ) -> None:
        victim, *others = clients
        victim.kill()
        say(f"client {victim.pid} killed")
        for client in others:
            client.tell("embed")
        is_same = all(json.loads(client.hear()) == embedded[0] for client in others)
        require("the others go on, with the same results", holds=is_same)
        require("it is still the one build", holds=own.call("known")["builds"] == 1)
        say(f"{len(others)} clients went on; still one build")
