"""The whole benchmark: times first, with the machine to themselves, and then memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from checkpoint_release.benchmark.machine import this_machine
from checkpoint_release.benchmark.memory import Memory, measure_memory
from checkpoint_release.benchmark.rounds import Timing, take_turns
from checkpoint_release.benchmark.settings import Sizes, all_sizes
from checkpoint_release.benchmark.summary import Place, place_of, summarise
from checkpoint_release.benchmark.ways import Way, find_ways
from checkpoint_release.benchmark.worker import WayFailedError, environment
from checkpoint_release.core.artifacts.benchmark import Benchmark, NotRun
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT, CheckpointFolder
from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.artifacts.manifest import MANIFEST, read_verified
from checkpoint_release.core.artifacts.parity import PARITY_FOLDER, REPORT, read_report
from checkpoint_release.core.files import sha256
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.parity.workers import kill_until_done


def measure_artifacts(
    artifacts: Path,
    *,
    sizes: Mapping[str, Sequence[int]],
    threads: Sequence[int],
    rounds: int,
) -> Benchmark:
    """Measure every format that passed the parity check.

    Args:
        artifacts: the folder of all artifacts.
        sizes: dimension → sizes of the inputs. What the model doesn't have or take is
            left out, with a note; other dimensions have the signature's example.
        threads: numbers of threads; those beyond the cores aren't measured.
        rounds: how many turns each way to run the model has.

    Returns:
        The figures; a way that doesn't run is no error here.

    Raises:
        ArtifactError: an artifact is missing, changed, or didn't pass the parity check.
        ParamsError: the sizes are too many, or too large.
    """
    manifests = read_verified(artifacts, (CHECKPOINT, *FORMATS))
    enabled = {name: manifests[name] for name in FORMATS if manifests[name].enabled}
    read_report(artifacts / PARITY_FOLDER / REPORT).require_passed(artifacts, enabled)
    checkpoint = CheckpointFolder.open(artifacts / CHECKPOINT, OWN_ARTIFACTS)
    chosen, notes = all_sizes(checkpoint.architecture.signature, sizes)
    for note in notes:
        print(f"note: {note}")
    machine = this_machine()
    if machine.busy:
        print(
            f"note: the machine is busy (load {machine.load:g} on {machine.cores}"
            " cores), so the figures are worth less"
        )
    ways = find_ways(artifacts, enabled)
    timings: list[Timing] = []
    not_run: list[NotRun] = []
    memory: dict[Place, Memory] = {}
    for number in threads:
        if number > machine.cores:
            reason = f"this machine has {machine.cores} cores for it"
            not_run.append(NotRun(threads=number, reason=reason))
            continue
        with environment(number):
            found, failed = take_turns(ways, chosen, number, rounds)
            memory |= _all_memory(ways, found, number)
        timings += found
        not_run += failed
    return summarise(
        timings,
        memory,
        not_run,
        machine=machine,
        checked={name: sha256(artifacts / name / MANIFEST) for name in enabled},
    )


def _all_memory(
    ways: Sequence[Way], timings: Sequence[Timing], threads: int
) -> dict[Place, Memory]:
    """The memory of each timing that could be measured, as many at once as there are
    cores: how fast a process runs doesn't change what memory it takes.
    """
    by_name = {way.name: way for way in ways}
    found: dict[Place, Memory] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {}
        for timing in timings:
            running[place_of(timing)] = pool.submit(
                _memory_or_none, by_name[timing.way], threads, timing.sizes
            )
        try:
            for place, future in running.items():
                memory = future.result()
                if memory is not None:
                    found[place] = memory
        except BaseException:  # such as SIGTERM: nobody waits for the figures
            pool.shutdown(wait=False, cancel_futures=True)
            kill_until_done(running.values())
            raise
    return found


def _memory_or_none(way: Way, threads: int, sizes: Sizes) -> Memory | None:
    """The memory; None where the process fails, such as for want of memory."""
    try:
        return measure_memory(way, threads, sizes)
    except WayFailedError:
        return None
