"""A network of its own with one link to this machine, which tests can cut."""

from __future__ import annotations

import os
import subprocess
from types import TracebackType

import pytest


class OtherNetwork:
    """A network namespace of Linux's; it skips the test where none may be made.

    Attributes:
        here: this machine's address on the link.
        there: the address of what runs in the namespace.
    """

    here, there = "10.211.47.1", "10.211.47.2"

    def __init__(self) -> None:
        self._name = f"test-{os.getpid()}"
        self._link = f"test{os.getpid()}"

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that runs in the namespace."""
        return ["ip", "netns", "exec", self._name]

    def __enter__(self) -> OtherNetwork:
        try:
            self._ip("netns", "add", self._name)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a network namespace takes Linux, ip and the rights of root")
        try:
            inner = ("peer", "name", "there", "netns", self._name)
            self._ip("link", "add", self._link, "type", "veth", *inner)
            self._ip("addr", "add", f"{self.here}/30", "dev", self._link)
            self._ip("link", "set", self._link, "up")
            inside = ("-n", self._name)
            self._ip(*inside, "addr", "add", f"{self.there}/30", "dev", "there")
            self._ip(*inside, "link", "set", "there", "up")
            self._ip(*inside, "link", "set", "lo", "up")
        except BaseException:
            self._ip("netns", "del", self._name)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._ip("netns", "del", self._name)

    def cut(self) -> None:
        """Let nothing pass any more; nobody is told so."""
        self._ip("link", "set", self._link, "down")

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)
