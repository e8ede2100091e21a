"""Everything that is measured rather than tested, one after the other."""

from __future__ import annotations

import subprocess
import sys

BENCHES = ("checkpoint", "size", "hostile", "exports", "loader", "pipeline")


def main() -> None:
    for name in BENCHES:
        print(f"\n== {name} ==", flush=True)
        subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=True)


if __name__ == "__main__":
    main()
