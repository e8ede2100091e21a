"""The workers of one host, as the coordinator starts them over SSH:

    python -m checkpoint_release.fleet.ssh_worker

The first line of standard input is a JSON object with the scheduler's address, the
number of workers and the TLS certificates. The workers end where the input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from checkpoint_release.fleet.dask_settings import apply_settings


async def serve(asked: dict[str, Any]) -> None:
    """Run the workers until standard input ends.

    Args:
        asked: what the first line held.
    """
    from distributed import Nanny, Security

    apply_settings()
    security = Security(require_encryption=True, **asked["certificates"])
    nannies = [
        Nanny(
            asked["scheduler"],
            nthreads=1,
            memory_limit=0,  # Dask would measure the worker without its children
            security=security,
            protocol="tls",
            dashboard=False,
            silence_logs=50,
        )
        for _ in range(asked["workers"])
    ]
    for nanny in nannies:
        await nanny
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for nanny in nannies:
        await nanny.close(timeout=5)


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.stdin.readline())))
