"""checkpoint-release fleet: release many checkpoints, on this machine or on many.

checkpoint-release fleet plan
checkpoint-release fleet member step-100
checkpoint-release fleet run --cluster local:2
checkpoint-release fleet collect
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checkpoint_release.fleet.outcome import Outcome
    from checkpoint_release.fleet.plan import FleetPlan, Member

SUMMARY = "release many checkpoints, on this machine or on many"
_MOST_JOBS = 256  # of a matrix of GitHub's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their arguments."""
    parser.add_argument(
        "--file",
        type=Path,
        default=Path("fleet.yaml"),
        metavar="FILE",
        help="what the fleet is (default: fleet.yaml)",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    summary = "list the members, and what is done, stale and new"
    plan = verbs.add_parser("plan", help=summary, description=summary)
    plan.add_argument("--json", action="store_true", help="for other programs")
    plan.add_argument(
        "--jobs",
        type=_positive,
        default=_MOST_JOBS,
        metavar="N",
        help=f"jobs that the JSON's matrix may have (default: {_MOST_JOBS})",
    )

    summary = "build members here, one after the other; for any engine to call"
    member = verbs.add_parser("member", help=summary, description=summary)
    member.add_argument("members", nargs="+", metavar="KEY", help="a key or a name")
    _add_results(member, "folder to leave the results in")
    _add_home(member)

    summary = "build what is new or stale, on a Dask cluster, and publish it"
    run = verbs.add_parser("run", help=summary, description=summary)
    run.add_argument(
        "--cluster",
        default="local",
        metavar="WHERE",
        help="local:N, ssh:FILE, tls://HOST:PORT or tcp://127.0.0.1:PORT"
        " (default: local, with a worker for each core)",
    )
    run.add_argument(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="further tries where a host was at fault (default: 2)",
    )
    run.add_argument("--no-publish", action="store_true", help="leave the Hub alone")
    run.add_argument("--again", action="store_true", help="build what is done, too")
    _add_home(run)

    summary = "write fleet.json, a table and a page about all members"
    collect = verbs.add_parser("collect", help=summary, description=summary)
    collect.add_argument(
        "--out",
        type=Path,
        default=Path("fleet"),
        metavar="FOLDER",
        help="where to write (default: fleet)",
    )
    collect.add_argument(
        "--diff", nargs=2, metavar="MEMBER", help="compare two members instead"
    )
    _add_results(collect, "folder with results of `fleet member` to take in first")


def _add_results(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("fleet-results"),
        metavar="FOLDER",
        help=f"{text} (default: fleet-results)",
    )


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--home",
        metavar="FOLDER",
        help="folder on each host for its DVC cache and scratch clones (default:"
        " CHECKPOINT_RELEASE_FLEET_HOME, or in the user's cache folder)",
    )


def _positive(text: str) -> int:
    """A number of at least 1.

    Raises:
        ValueError: it is none.
    """
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Do what the verb says; 1 where a member or a publication failed.

    Raises:
        CheckpointReleaseError: fleet.yaml, the project or a source isn't right, or the
            cluster can't be had.
    """
    from checkpoint_release.fleet.plan import make_plan
    from checkpoint_release.fleet.spec import load_spec

    if asked.verb == "run":
        return _run(asked)
    plan = make_plan(Path.cwd(), load_spec(asked.file))
    if asked.verb == "plan":
        return _plan(plan, asked)
    if asked.verb == "member":
        return _members(plan, asked)
    return _collect(plan, asked)


def _plan(plan: FleetPlan, asked: argparse.Namespace) -> int:
    from checkpoint_release.fleet.listing import listing

    if asked.json:
        print(json.dumps(plan.to_json(asked.jobs), indent=2, ensure_ascii=False))
    else:
        print(listing(plan))
    return 0


def _members(plan: FleetPlan, asked: argparse.Namespace) -> int:
    """Build the members asked for; each that can be is, whatever happens to others."""
    chosen = [plan.member(text) for text in asked.members]
    return max(_member(plan, member, asked) for member in chosen)


def _member(plan: FleetPlan, member: Member, asked: argparse.Namespace) -> int:
    from checkpoint_release.fleet.launch import launch
    from checkpoint_release.fleet.results import read_result, result_path
    from checkpoint_release.fleet.workspace import default_home

    known = read_result(asked.results, member)
    if member.state == "done" or (known is not None and known.built is not None):
        print(f"{member.name} is built already")
        return 0
    home = Path(asked.home) if asked.home else default_home()
    outcome = launch(plan.job(member), home, echo=lambda line: print(line, flush=True))
    asked.results.mkdir(parents=True, exist_ok=True)
    path = result_path(asked.results, member)
    outcome.write(path)
    return _stated(outcome, path)


def _stated(outcome: Outcome, path: Path) -> int:
    from checkpoint_release.core.text import for_terminal

    if outcome.failed is not None:
        failed = outcome.failed
        where = f" in {failed.stage}" if failed.stage else ""
        message = f"error: {failed.name} failed{where}: {failed.message}"
        print(for_terminal(message), file=sys.stderr)
        return 1
    print(f"{outcome.name} is built: {path}")
    return 0


def _run(asked: argparse.Namespace) -> int:
    import distributed  # noqa: F401

    from checkpoint_release.fleet.coordinator import Options, run_fleet
    from checkpoint_release.fleet.spec import load_spec

    options = Options(
        cluster=asked.cluster,
        retries=asked.retries,
        home=asked.home,
        publishes=not asked.no_publish,
        again=asked.again,
    )
    plan, report = run_fleet(Path.cwd(), load_spec(asked.file), options)
    print(report.text(plan))
    return 0 if report.succeeded else 1


def _collect(plan: FleetPlan, asked: argparse.Namespace) -> int:
    from checkpoint_release.fleet.collect import collect, compared
    from checkpoint_release.fleet.plan import make_plan
    from checkpoint_release.fleet.results import take_in

    if asked.diff:
        print(compared(plan, *asked.diff))
        return 0
    taken = take_in(plan, asked.results)
    failed = [each.failed for each in taken if each.failed is not None]
    plan = make_plan(plan.project.root, plan.spec)
    for line in collect(plan, asked.out, failed):
        print(line)
    return 1 if failed else 0
