"""A process that has opened one way to run the model, and times its calls when asked.

It waits between its turns, and only one process has a turn at a time.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from checkpoint_release.benchmark.settings import Sizes
from checkpoint_release.benchmark.ways import Way
from checkpoint_release.core.errors import CheckpointReleaseError, one_line
from checkpoint_release.core.inherited_environment import inherited_environment
from checkpoint_release.core.signature import Array, sample_inputs
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.runtimes.runtime import Options, Runtime

SEED = 0
"""Of the inputs, which are the same for every way."""
TURN = 0.05  # seconds of timed calls in one turn, about
MOST_CALLS = 50  # in one turn
# TorchScript's executor watches two calls before it optimises.
_WARM_UP_CALLS = 3
_WARM_UP_TIME = 0.5  # seconds; shorter calls are repeated so long
_WARM_UP_MOST = 50
LIMIT = 1800.0  # seconds for one answer; a compilation may take minutes
_ENDING = 5.0  # seconds
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WayFailedError(Exception):
    """A way can't be run; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """What is known once inputs of one size ran.

    Attributes:
        first: seconds of the first call.
        calls: how many calls fill a turn.
        outputs: of the model, in the signature's order.
    """

    first: float
    calls: int
    outputs: list[Array]


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """What processes inherit that are started meanwhile.

    Libraries read the number of threads when they are loaded. What torch.compile makes
    serves the processes that come after, and is gone at the end, so that every
    benchmark compiles anew.

    Args:
        threads: that one call uses.
    """
    with TemporaryDirectory() as folder:
        wanted = dict.fromkeys(_THREADS, str(threads))
        wanted["TORCHINDUCTOR_CACHE_DIR"] = folder
        wanted["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes of its own
        with inherited_environment(wanted):
            yield


class Worker:
    """The process, as the one that asks sees it.

    It is started within `environment`, and ends with the `with` block.

    Args:
        way: what it opens.
        threads: that one call uses.
    """

    def __init__(self, way: Way, threads: int) -> None:
        self.way = way
        self._folder = TemporaryDirectory()
        self._log = Path(self._folder.name) / "stderr"
        context = multiprocessing.get_context("spawn")
        self._answers, answers = context.Pipe(duplex=False)
        requests, self._requests = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_serve, args=(requests, answers, self._log), daemon=True
        )
        with requests, answers:
            self._process.start()
        self._send((way, threads))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._requests.close()  # by which it knows that it may end
        self._process.join(_ENDING)
        self._process.kill()
        self._process.join()
        self._answers.close()
        self._folder.cleanup()

    def prepare(self, sizes: Sizes) -> Prepared:
        """Run inputs of one size until calls take what they will take.

        Raises:
            WayFailedError: they can't be run.
        """
        prepared: Prepared = self._ask(_Opened.prepare, sizes)
        return prepared

    def turn(self, sizes: Sizes, calls: int) -> list[float]:
        """Time calls on inputs that were prepared.

        Args:
            sizes: of the inputs.
            calls: how many.

        Returns:
            Seconds of each.

        Raises:
            WayFailedError: a call failed.
        """
        times: list[float] = self._ask(_Opened.turn, sizes, calls)
        return times

    def _ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """The answer of the process.

        Raises:
            WayFailedError: it failed, or the process ended.
        """
        self._send((method.__name__, arguments))
        try:
            if not self._answers.poll(LIMIT):
                raise WayFailedError(f"it took longer than {LIMIT:g} seconds")
            failure, answer = self._answers.recv()
        except (EOFError, OSError):
            raise WayFailedError(self._how_it_ended()) from None
        if failure is not None:
            raise WayFailedError(failure)
        return answer

    def _send(self, message: Any) -> None:
        try:
            self._requests.send(message)
        except OSError:
            raise WayFailedError(self._how_it_ended()) from None

    def _how_it_ended(self) -> str:
        self._process.join()
        printed = ""
        if self._log.exists():
            printed = self._log.read_text(encoding="utf-8", errors="replace").strip()
        last = printed.splitlines()[-1] if printed else "it printed nothing"
        return f"its process ended with {self._process.exitcode}: {last}"


# --------------------------------------------------------------------------------------
# In the process


class _Opened:
    """A way that was opened, and inputs of the sizes that were prepared."""

    def __init__(self, way: Way, threads: int) -> None:
        self._way = way
        self._threads = threads
        self._runtime: Runtime | None = None
        self._inputs: dict[str, list[Array]] = {}

    def prepare(self, sizes: Sizes) -> Prepared:
        """See Worker.prepare."""
        if self._runtime is None:
            self._runtime = open_way(self._way, self._threads)
        inputs = inputs_of(self._runtime, sizes)
        self._inputs[sizes.text] = inputs
        compute = self._runtime.compute
        begin = time.perf_counter()
        outputs = compute(inputs)
        first = time.perf_counter() - begin
        times: list[float] = []
        while len(times) < _WARM_UP_CALLS or (
            sum(times) < _WARM_UP_TIME and len(times) < _WARM_UP_MOST
        ):
            times.append(_seconds(compute, inputs))
        calls = math.ceil(TURN / max(min(times), 1e-6))
        return Prepared(first, min(calls, MOST_CALLS), list(outputs))

    def turn(self, sizes: Sizes, calls: int) -> list[float]:
        """See Worker.turn. The caches are another process's after its turn, so that one
        call goes before those that are timed.
        """
        runtime = self._runtime
        if runtime is None:
            raise RuntimeError("nothing was prepared")
        inputs = self._inputs[sizes.text]
        runtime.compute(inputs)
        gc.collect()
        gc.disable()
        try:
            return [_seconds(runtime.compute, inputs) for _ in range(calls)]
        finally:
            gc.enable()


def open_way(way: Way, threads: int) -> Runtime:
    """Open a way in this process."""
    return way.open(Options(threads=threads, trust=OWN_ARTIFACTS))


def inputs_of(runtime: Runtime, sizes: Sizes) -> list[Array]:
    """The inputs of one size, in the signature's order."""
    drawn = sample_inputs(runtime.signature, sizes.of, SEED)
    return [drawn[name] for name in runtime.signature.input_names]


def _seconds(
    compute: Callable[[Sequence[Array]], Sequence[Array]], inputs: Sequence[Array]
) -> float:
    begin = time.perf_counter()
    compute(inputs)
    return time.perf_counter() - begin


def _serve(requests: Connection, answers: Connection, log: Path) -> None:
    """All that the process does.

    Args:
        requests: what to open, and then names of methods with their arguments.
        answers: where to send what they return: why it failed or None, and the answer.
        log: the file that takes the place of standard error.
    """
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    with Path(os.devnull).open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
    opened = _Opened(*requests.recv())
    while True:
        try:
            name, arguments = requests.recv()
        except EOFError:
            return  # the one that asks is gone
        try:
            answer = getattr(opened, name)(*arguments)
        except (Exception, SystemExit) as error:  # a library's, or the model's code's
            answers.send((failure_of(error), None))
        else:
            answers.send((None, answer))


def failure_of(error: BaseException) -> str:
    """Why a way can't be run, as a sentence without a full stop."""
    if isinstance(error, CheckpointReleaseError):
        return error.problem
    return f"{type(error).__name__}: {one_line(error)}"
