"""Stage benchmark, off by default: how fast each format runs on this machine, and how
much memory it takes, beside eager torch and torch.compile.

    dvc repro --single-item --force benchmark      measures once more

Reads artifacts/checkpoint, the formats' folders and the parity report, for what is
wrong isn't measured. Writes artifacts/benchmark.json, which git tracks and DVC never
restores from a cache: it is evidence of the one machine that it names. Where it is
switched off, that is an empty object.
"""

from __future__ import annotations

from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.benchmark import BENCHMARK, Benchmark
from checkpoint_release.core.params import load_params
from checkpoint_release.core.sources import make_importable


def main() -> None:
    """Measure, if that is asked for.

    Raises:
        ArtifactError: an artifact is missing, changed, or didn't pass the parity check.
        ParamsError: the sizes are too many, or too large.
    """
    params = load_params()
    target = stage.ARTIFACTS / BENCHMARK
    if not params.benchmark.enabled:
        Benchmark().write(target)
        print("benchmark.enabled is false: nothing was measured")
        return
    # Where it is switched off, importing this would take longer than all the rest.
    from checkpoint_release.benchmark.measure import measure_artifacts
    from checkpoint_release.benchmark.table import table

    make_importable(params.model)
    benchmark = measure_artifacts(
        stage.ARTIFACTS,
        sizes=params.benchmark.sizes,
        threads=params.benchmark.threads,
        rounds=params.benchmark.rounds,
    )
    benchmark.write(target)
    print(table(benchmark))


if __name__ == "__main__":
    stage.run(main)
