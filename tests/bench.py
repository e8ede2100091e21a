"""Everything that is measured rather than tested, one after the other: `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> None:
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"\n== {script.stem.removeprefix('bench_')} ==", flush=True)
        subprocess.run([sys.executable, "-m", f"tests.{script.stem}"], check=True)


if __name__ == "__main__":
    main()
