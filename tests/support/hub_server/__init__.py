"""A Hub for tests: the part of the Hugging Face Hub's HTTP API that its Python client
uses, on loopback.

It stores real bytes, keeps real git blob ids and sha256 digests, knows who may do what,
and breaks on request (`faults`, `lies`). `storage` holds what there is, `app` speaks
HTTP, `faults` breaks it, `server` runs it.
"""

from tests.support.hub_server.faults import Fault
from tests.support.hub_server.server import HubServer
from tests.support.hub_server.storage import Account, HubError, Repo

__all__ = ["Account", "Fault", "HubError", "HubServer", "Repo"]
