"""The real `egressctl`, run where the API server is."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .control_plane import REPOSITORY, ControlPlane
from .network import HUB, inside
from .processes import PATIENCE, NotInTime, run

PROGRAM = REPOSITORY / "dist/egressctl"


@dataclass(frozen=True)
class Said:
    """What it printed, and its exit code."""

    out: str
    err: str
    status: int

    @property
    def rows(self) -> list[list[str]]:
        """The cells of the table, without its heading; columns are two spaces apart."""
        table = self.out.partition("\nNAMESPACE ")[2].partition("\n\n")[0].splitlines()[1:]
        return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table]

    def row(self, name: str) -> list[str]:
        """What a row says behind its name."""
        (row,) = (row[1:] for row in self.rows if row[0] == name)
        return row


class Egressctl:
    """One of its commands."""

    def __init__(self, control_plane: ControlPlane, command: str) -> None:
        self.kubeconfig, self.command = control_plane.kubeconfig, command

    def __call__(self, *arguments: str, kubeconfig: Path | None = None, input: str | None = None) -> Said:
        """Runs it without a terminal."""
        options = {} if input is None else {"input": input}
        done = run(self._command(arguments, kubeconfig), check=False, **options)
        return Said(done.stdout, done.stderr, done.returncode)

    def ask(self, *arguments: str) -> Asked:
        """Starts it on a terminal, and waits for its question."""
        return Asked(self._command(arguments, None))

    def _command(self, arguments: tuple[str, ...], kubeconfig: Path | None) -> list[str]:
        environment = ["env", f"KUBECONFIG={kubeconfig or self.kubeconfig}"]
        return inside(HUB, [*environment, str(PROGRAM), self.command, *arguments])


class Asked:
    """One that waits for an answer."""

    def __init__(self, command: list[str]) -> None:
        self.terminal, end = pty.openpty()
        self.popen = subprocess.Popen(command, stdin=end, stdout=subprocess.PIPE, stderr=end, start_new_session=True)
        os.close(end)
        self.question = ""
        deadline = time.monotonic() + PATIENCE
        while "[y/N]" not in self.question:
            if not select.select([self.terminal], [], [], deadline - time.monotonic())[0]:
                self.popen.kill()
                raise NotInTime(f"no question: {self.question}")
            self.question += self._read()

    def _read(self) -> str:
        try:
            return os.read(self.terminal, 65536).decode()
        except OSError:
            # The other end is closed.
            raise AssertionError(f"ended without a question: {self.question}") from None

    def answer(self, text: str) -> Said:
        os.write(self.terminal, text.encode() + b"\n")
        out, _ = self.popen.communicate(timeout=PATIENCE)
        rest = ""
        while select.select([self.terminal], [], [], 0)[0]:
            try:
                rest += os.read(self.terminal, 65536).decode()
            except OSError:
                break
        os.close(self.terminal)
        return Said(out.decode(), self.question + rest, self.popen.returncode)
