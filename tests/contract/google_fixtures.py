"""One stand-in per test module, emptied for every test, with one account that has one calendar."""

from collections.abc import Iterator

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.server import ThreadedServer
from sandbox.google.specs import AccountInfo
from tests.contract.google_schema import ANN, CheckedClient


@pytest.fixture(scope="module")
def google_server() -> Iterator[ThreadedServer]:
    with ThreadedServer() as server:
        yield server


@pytest.fixture
def google(google_server: ThreadedServer) -> Iterator[GoogleControl]:
    with GoogleControl(google_server.base_url) as control:
        control.reset(seed=1)
        yield control


@pytest.fixture
def ann(google: GoogleControl) -> AccountInfo:
    return google.create_account(ANN)


@pytest.fixture
def client(google: GoogleControl, ann: AccountInfo) -> Iterator[CheckedClient]:
    checked = CheckedClient(google.api_endpoint, ann.access_token)
    yield checked
    checked.close()
