"""The workers' doorbell: heard at once, found again, and harmless when there is none."""

import threading
import time
from collections.abc import Iterator

import pytest

from db.session import Database
from sandbox.servers.ports import free_port
from sandbox.servers.realtime import SupabaseGateway
from tenantsync.work import intake
from tenantsync.work.doorbell import Doorbell
from tests.support.fleet import make_settings
from tests.support.mirror import MirrorSide, plant_tenant
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.realtime_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = [
    pytest.mark.timeout(600),
    # the client asks websockets for the code of a lost connection in a way of old
    pytest.mark.filterwarnings("ignore:ConnectionClosed.code is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:ConnectionClosed.reason is deprecated:DeprecationWarning"),
]

ASK = "insert into public.tasks (tenant_id, kind) values (%s, 'k')"
TENANT = "0a000000-0000-7000-8000-00000000000a"


class Rings:
    """What the doorbell called, and when."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self) -> None:
        self.at.append(time.monotonic())
        self.hold.wait(10)


@pytest.fixture
def rings() -> Rings:
    return Rings()


@pytest.fixture
def doorbell(mirror: MirrorSide, supabase_gateway: SupabaseGateway, rings: Rings) -> Iterator[Doorbell]:
    """One that has joined, and has looked once for what rang before."""
    settings = make_settings(
        "postgresql://nobody@127.0.0.1:1/none",
        supabase_url=supabase_gateway.url,
        supabase_secret_key=mirror.lite.secret_key,
    )
    with Doorbell(settings, rings) as bell:
        wait_until(lambda: bell.joined.is_set() and len(rings.at) == 1, about="joining")
        yield bell


def test_a_new_task_is_heard_at_once(mirror: MirrorSide, doorbell: Doorbell, rings: Rings) -> None:
    before = time.monotonic()

    mirror.execute(ASK, (TENANT,))

    wait_until(lambda: len(rings.at) == 2, about="ring 2")
    assert rings.at[1] - before < 1


def test_a_wish_to_cancel_is_heard(mirror: MirrorSide, doorbell: Doorbell, rings: Rings) -> None:
    mirror.execute(ASK, (TENANT,))
    wait_until(lambda: len(rings.at) == 2, about="ring 2")

    mirror.execute("update public.tasks set cancel_requested_at = now()")

    wait_until(lambda: len(rings.at) == 3, about="ring 3")


def test_many_rings_are_one_while_the_first_is_answered(mirror: MirrorSide, doorbell: Doorbell, rings: Rings) -> None:
    rings.hold.clear()
    mirror.execute(ASK, (TENANT,))
    wait_until(lambda: len(rings.at) == 2, about="ring 2")

    for _ in range(20):
        mirror.execute(ASK, (TENANT,))
    time.sleep(0.2)
    rings.hold.set()

    wait_until(lambda: len(rings.at) == 3, about="ring 3")
    time.sleep(0.3)
    assert len(rings.at) == 3


def test_it_is_found_again_and_looks_for_what_rang_meanwhile(
    doorbell: Doorbell, rings: Rings, supabase_gateway: SupabaseGateway
) -> None:
    supabase_gateway.kill()
    wait_until(lambda: not doorbell.joined.is_set(), about="the loss")
    supabase_gateway.start()

    wait_until(lambda: doorbell.joined.is_set() and len(rings.at) == 2, about="joining again")


@pytest.mark.parametrize("case", ["nobody listens", "no realtime", "wrong key"])
def test_without_realtime_nothing_happens_and_the_end_comes_quickly(
    mirror: MirrorSide, supabase_gateway: SupabaseGateway, rings: Rings, case: str
) -> None:
    address = {
        "nobody listens": f"http://127.0.0.1:{free_port()}",
        "no realtime": mirror.lite.url,
        "wrong key": supabase_gateway.url,
    }[case]
    settings = make_settings("postgresql://nobody@127.0.0.1:1/none", supabase_url=address)

    began = time.monotonic()
    with Doorbell(settings, rings) as bell:
        time.sleep(0.3)
        assert not bell.joined.is_set()

    assert rings.at == []
    assert time.monotonic() - began < 3


def test_the_intakes_ring_is_what_it_rings(
    database: Database, mirror: MirrorSide, supabase_gateway: SupabaseGateway
) -> None:
    plant_tenant(database, "acme")
    settings = make_settings(
        "postgresql://nobody@127.0.0.1:1/none",
        supabase_url=supabase_gateway.url,
        supabase_secret_key=mirror.lite.secret_key,
    )

    with Doorbell(settings, lambda: intake.ring(database)):
        wait_until(lambda: intake.is_rung(database), about="the ring")
