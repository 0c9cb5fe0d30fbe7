"""`pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]`."""

from collections.abc import Iterator

import pytest

from tests.support.desk import Desk
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import MirrorSide


@pytest.fixture
def desk(fleet: Fleet, mirror: MirrorSide) -> Iterator[Desk]:
    """A web app at Supabase and a worker that knows the letters' kinds."""
    made = Desk(fleet, mirror)
    yield made
    made.close()


@pytest.fixture
def asker(desk: Desk) -> TenantHandle:
    return desk.fleet.tenant("acme")


RULES = """
select conname as name, pg_get_constraintdef(oid) as rule from pg_constraint
 where conrelid = 'public.tasks'::regclass and conname like 'tasks_payload%%'
"""


@pytest.fixture
def lenient_desk(desk: Desk) -> Iterator[Desk]:
    """A project whose own rules about payloads let everything pass."""
    rules = desk.mirror.rows(RULES, ())
    for one in rules:
        desk.mirror.execute(f"alter table public.tasks drop constraint {one['name']}")
    yield desk
    desk.mirror.execute("delete from public.tasks")
    for one in rules:
        desk.mirror.execute(f"alter table public.tasks add constraint {one['name']} {one['rule']}")
