"""A Supabase that does the work and never says so. The one test that has to wait for the mirror's own time limit."""

import pytest

from db.session import Database
from tests.support.mirror import (
    MirrorSide,
    assert_mirror_equals_postgres,
    open_again,
    outbox,
    plant_calendar,
    plant_events,
    plant_tenant,
)
from tests.support.supabase_proxy import Trouble

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)


def test_p103_a_call_that_times_out_after_its_commit_is_repeated_without_harm(
    database: Database, mirror: MirrorSide
) -> None:
    acme = plant_tenant(database, "acme")
    plant_events(database, acme, plant_calendar(database, acme), 20)
    mirror.proxy.trouble(Trouble(withhold_answer=True), times=1)

    failed = mirror.drain(database)
    waiting = outbox(database)
    open_again(database)
    mirror.drain(database)

    assert failed.failure == "timeout"
    assert len(waiting) == 22
    assert_mirror_equals_postgres(database, mirror)
