"""How much memory reading one file may take: charged before it is taken.

A small file can ask for much memory or time by naming the same thing again and again.
So everything that reading makes out of a file is paid for first, in bytes, from one
budget that follows the file's size. Nothing is paid back, which bounds the time as
well: what takes long is charged for more bytes than it holds, at some 20 ns a byte.
"""

from __future__ import annotations

from checkpoint_release.core.errors import CheckpointError

BASE = 48 << 20  # bytes that reading any file may take
# bytes for each byte of the file: a float in a list takes 34 for the 9 of its pickle,
# a small tensor 3 for each of its entry and its pickle
GROWTH = 3.5


class Budget:
    """The memory that reading one file may still take.

    Attributes:
        left: in bytes; below zero it is spent. The unpickler's loop counts it down by
            itself, for speed.

    Args:
        file_size: in bytes.
    """

    def __init__(self, file_size: int) -> None:
        self._file_size = file_size
        self.limit = BASE + int(GROWTH * file_size)
        self.left = self.limit

    def charge(self, size: int) -> None:
        """Account for memory that is about to be taken.

        Args:
            size: in bytes.

        Raises:
            CheckpointError: it is more than is left.
        """
        self.left -= size
        if self.left < 0:
            raise self.exceeded()

    def exceeded(self) -> CheckpointError:
        """The error for a file that asks for more than its budget.

        It states the limit, by which the owner of an honest file can judge what to do.
        """
        return CheckpointError(
            f"the memory budget is exceeded: to read what this file of"
            f" {self._file_size:,} bytes holds would take more than"
            f" {self.limit >> 20} MiB, besides its tensors"
            f" ({BASE >> 20} MiB and {GROWTH} times the file are allowed)",
            "do not load it: it looks like a pickle bomb or a zip bomb; if it is yours,"
            " save tensors rather than Python lists, and don't compress it",
        )
