"""Real ranks: processes that torch.distributed joins over gloo, on this machine."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

_SECONDS = 120


def _rank(rank: int, count: int, work: Callable[[int], None], store: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=count
    )
    work(rank)
    dist.barrier()
    dist.destroy_process_group()


def run_ranks(count: int, work: Callable[[int], None], folder: Path) -> None:
    """Run a function in as many processes, each of them a rank.

    They are forked, so that none has to import torch again.

    Args:
        count: of processes.
        work: takes the rank; saves something.
        folder: for the store by which they find each other.
    """
    store = folder / f"store-{count}"
    forking = multiprocessing.get_context("fork")
    ranks = [
        forking.Process(target=_rank, args=(rank, count, work, str(store)))
        for rank in range(count)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(_SECONDS)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        if process.is_alive():
            process.kill()
    store.unlink(missing_ok=True)
    assert codes == [0] * count, codes
