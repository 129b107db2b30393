"""Processes that the mesh is made of: started in a network namespace, with their output in files, stopped at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# How long anything is waited for, in seconds. Nothing takes nearly as long; a busy machine may.
PATIENCE = 60


class NotInTime(AssertionError):
    """Something did not happen within PATIENCE."""


def wait(what: str, ready: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Asks until there is an answer that is neither None nor False."""
    deadline = time.monotonic() + patience
    while True:
        answer = ready()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {patience:.0f} s: {what}")
        time.sleep(0.05)


class Process:
    """A child process in a session of its own, so that what it starts ends with it."""

    def __init__(
        self, name: str, command: list[str], folder: Path, env: dict[str, str] | None = None, user: int = 0
    ) -> None:
        """`user` is who may open /dev/stdout anew, as Envoy does for its access log."""
        self.name = name
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        for path in (self.out, self.err):
            path.touch()
            os.chown(path, user, user)
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            environment = {**os.environ, **(env or {})}
            self.popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
            )

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.popen.pid, number)
            except ProcessLookupError:
                break
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                continue
        self.popen.wait()

    def tail(self, lines: int = 40) -> str:
        text = "".join(path.read_text(errors="replace") for path in (self.out, self.err))
        return f"--- {self.name}\n" + "\n".join(text.splitlines()[-lines:])


def run(command: list[str], timeout: float = PATIENCE, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; its output is text."""
    done = subprocess.run(
        command, stdin=None if "input" in options else subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, check=False, **options,
    )  # fmt: skip
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done
