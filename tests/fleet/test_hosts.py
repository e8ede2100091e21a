"""A fleet on two hosts over SSH, one of which fails, or can't be reached any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.fleets import WEIGHTS_ONLY, Fleet, fleet_checkout, wait_until
from tests.support.other_network import OtherNetwork
from tests.support.project import LIMIT
from tests.support.ssh_server import SshHost

pytestmark = pytest.mark.slow


def write_hosts(
    fleet: Fleet, hosts: list[SshHost], scheduler: str = "127.0.0.1"
) -> None:
    known = fleet.path.parent / "known_hosts"
    known.write_text("".join(host.known for host in hosts))
    stated = {
        "scheduler": scheduler,
        "known_hosts": str(known),
        "hosts": [
            {"host": host.address, "port": host.port, "key": str(host.key)}
            for host in hosts
        ],
    }
    with (fleet.path.parent / "hosts.yaml").open("w") as file:
        YAML().dump(stated, file)


def test_a_host_that_fails_leaves_its_members_to_the_other(tmp_path: Path) -> None:
    fleet = fleet_checkout(tmp_path, steps=2, params=WEIGHTS_ONLY)
    # the hosts fetch the commit, as from another machine
    address = f"file://{fleet.path}"
    fleet.spec(params=WEIGHTS_ONLY, repository=address)
    with SshHost(tmp_path / "one") as one, SshHost(tmp_path / "two") as two:
        write_hosts(fleet, [one, two])
        with fleet.started("run", "--cluster", "ssh:../hosts.yaml") as run:
            wait_until(
                lambda: member_on(one) and member_on(two), "a member on each host"
            )
            two.fail()
            printed, _ = run.communicate(timeout=LIMIT)
            assert run.returncode == 0, printed
        assert "2 members to build on 2 workers" in printed
        assert "2 of 2 members are built" in printed
        assert sorted(fleet.built()) == ["step-1", "step-2"]
        assert list((one.home / "mirrors").glob("*.git"))
        wait_until(lambda: not Fleet(fleet.project, one.home).processes(), "the end")

        unknown = fleet.path.parent / "known_hosts"
        unknown.write_text("")
        failed = fleet.command(
            "run", "--again", "--cluster", "ssh:../hosts.yaml", check=False
        )
        assert failed.returncode == 1
        assert "127.0.0.1 can't be reached over SSH" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_a_network_that_is_cut_leaves_the_members_beyond_it_to_the_other_host(
    tmp_path: Path,
) -> None:
    fleet = fleet_checkout(tmp_path, steps=2, params=WEIGHTS_ONLY)
    with (
        OtherNetwork() as network,
        SshHost(tmp_path / "one") as one,
        SshHost(tmp_path / "two", network) as two,
    ):
        write_hosts(fleet, [one, two], network.here)
        with fleet.started("run", "--cluster", "ssh:../hosts.yaml") as run:
            wait_until(
                lambda: member_on(one) and member_on(two), "a member on each host"
            )
            network.cut()
            printed, _ = run.communicate(timeout=LIMIT)
            assert run.returncode == 0, printed
        assert "2 of 2 members are built" in printed
        beyond = Fleet(fleet.project, two.home)
        # a worker that hears nothing of its scheduler ends, and its member with it
        wait_until(lambda: not beyond.processes(), "the end of the member beyond it")


def member_on(host: SshHost) -> bool:
    return any((host.home / "scratch").glob("*/*/clone/artifacts/checkpoint"))
