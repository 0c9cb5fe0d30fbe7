"""Who sees what at Supabase: row-level security, and the doorbell on its private topic."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import psycopg2.errors
import pytest

from tests.support.plain_supabase import PlainSupabase, Row

A, B = "0a000000-0000-7000-8000-00000000000a", "0b000000-0000-7000-8000-00000000000b"
A1, A2, B1 = (f"{number}0000000-0000-7000-8000-000000000000" for number in (1, 2, 3))
TABLES = ("calendar_accounts", "calendars", "calendar_events")
DELETED = "2026-03-01T10:00:00+00:00"


def account(tenant: str, workspace: str, **changes: Any) -> Row:
    row = {"id": str(uuid.uuid4()), "tenant_id": tenant, "workspace_id": workspace, "version": 1, "deleted_at": None}
    return (
        row | {"provider": "google", "identity": "x@example.test", "state": "connected", "state_reason": None} | changes
    )


def calendar(tenant: str, workspace: str, **changes: Any) -> Row:
    row = {"id": str(uuid.uuid4()), "tenant_id": tenant, "workspace_id": workspace, "version": 1, "deleted_at": None}
    return row | {"account_id": str(uuid.uuid4()), "provider_key": "k", "name": "n", "state": "synced"} | changes


def event(tenant: str, workspace: str, **changes: Any) -> Row:
    row = {"id": str(uuid.uuid4()), "tenant_id": tenant, "workspace_id": workspace, "version": 1, "deleted_at": None}
    return (
        row
        | {"calendar_id": str(uuid.uuid4()), "provider_key": "k", "status": "confirmed", "all_day": False, "title": "t"}
        | changes
    )


MAKERS: dict[str, tuple[str, Callable[..., Row]]] = {
    "calendar_accounts": ("accounts", account),
    "calendars": ("calendars", calendar),
    "calendar_events": ("events", event),
}


@pytest.fixture
def populated(project: PlainSupabase) -> PlainSupabase:
    """Every table holds a live row and a tombstone of each workspace."""
    for target, make in MAKERS.values():
        places = [(A, A1), (A, A2), (B, B1)]
        project.apply(target, [make(*place) for place in places])
        project.apply(target, [make(*place, deleted_at=DELETED) for place in places])
    return project


INSERT = f"""
insert into public.calendars (id, tenant_id, workspace_id, version, account_id, provider_key, name, state)
values (gen_random_uuid(), '{A}', '{A1}', 9, gen_random_uuid(), 'k', 'n', 'synced')
"""


def member(tenant: str | None, **more: Any) -> dict[str, Any]:
    return {"sub": str(uuid.uuid4()), "app_metadata": {"tenant_id": tenant, **more}}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("claims", "workspaces"),
    [
        (member(A), {A1, A2}),
        (member(B), {B1}),
        (member(A, workspace_ids=[A1, A2]), {A1, A2}),
        (member(A, workspace_ids=[A2]), {A2}),
        (member(A, workspace_ids=[]), set()),
        (member(A, workspace_ids=[B1]), set()),
        (member(B, workspace_ids=[A1]), set()),
        (member(str(uuid.uuid4())), set()),
        (member(""), set()),
        (member(None), set()),
        (member(None, workspace_ids=[A1]), set()),
        ({"app_metadata": {}}, set()),
        ({}, set()),
        ({"tenant_id": A}, set()),
        ({"user_metadata": {"tenant_id": A, "workspace_ids": [A1]}}, set()),
    ],
)
def test_p105_a_member_sees_the_live_rows_of_the_own_workspaces_alone(
    populated: PlainSupabase, table: str, claims: dict[str, Any], workspaces: set[str]
) -> None:
    seen = populated.ask("authenticated", f"select * from public.{table}", claims=claims)

    assert sorted(row["workspace_id"] for row in seen) == sorted(workspaces)
    assert {row["deleted_at"] for row in seen} <= {None}


@pytest.mark.parametrize("table", TABLES)
def test_p105_who_is_not_signed_in_may_not_even_ask(populated: PlainSupabase, table: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        populated.ask("anon", f"select * from public.{table}", claims=member(A))


@pytest.mark.parametrize("table", TABLES)
def test_the_service_role_sees_everything(populated: PlainSupabase, table: str) -> None:
    assert len(populated.ask("service_role", f"select * from public.{table}")) == 6


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize(
    "attempt",
    [
        INSERT,
        "update public.calendars set name = 'mine', version = version + 1",
        "delete from public.calendars",
        "truncate public.calendars",
        "select public.mirror_apply('events', '[]')",
        "select public.mirror_apply_set('events', '[]')",
        "select public.mirror_apply_accounts('[]')",
        "select public.mirror_apply_calendars('[]')",
        "select public.mirror_apply_events('[]')",
        "select public.mirror_purge(now())",
    ],
)
def test_p105_a_member_cannot_write_nor_call_what_writes(populated: PlainSupabase, role: str, attempt: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        populated.ask(role, attempt, claims=member(A))


def test_p105_errors_and_secrets_have_no_column(project: PlainSupabase) -> None:
    columns = project.rows("select column_name from information_schema.columns where table_schema = 'public'")

    secret = {"credentials", "access_token", "refresh_token", "last_error", "cursor", "etag", "raw", "excerpt"}
    assert secret.isdisjoint({row["column_name"] for row in columns})


# The doorbell


def rings(project: PlainSupabase) -> list[tuple[str, str, int]]:
    """(topic, table, rows) of every ring, in order."""
    found = project.rows("select topic, payload from realtime.messages order by inserted_at, topic")
    return [(row["topic"], row["payload"]["table"], row["payload"]["rows"]) for row in found]


@pytest.mark.parametrize("table", TABLES)
def test_the_doorbell_rings_once_a_statement_and_tenant_for_new_rows(project: PlainSupabase, table: str) -> None:
    target, make = MAKERS[table]

    project.apply(target, [*(make(A, A1) for _ in range(200)), *(make(B, B1) for _ in range(3))])

    assert rings(project) == [(f"tenant:{A}", table, 200), (f"tenant:{B}", table, 3)]


@pytest.mark.parametrize("table", TABLES)
def test_the_doorbell_rings_once_a_statement_and_tenant_for_changed_rows(project: PlainSupabase, table: str) -> None:
    target, make = MAKERS[table]
    rows = [*(make(A, A1) for _ in range(20)), make(B, B1)]
    project.apply(target, rows)
    project.execute("truncate realtime.messages")

    project.apply(target, [row | {"version": 2} for row in rows])

    assert rings(project) == [(f"tenant:{A}", table, 20), (f"tenant:{B}", table, 1)]


def test_the_doorbell_rings_once_for_what_a_statement_adds_and_once_for_what_it_changes(project: PlainSupabase) -> None:
    old = event(A, A1)
    project.apply("events", [old])
    project.execute("truncate realtime.messages")

    project.apply("events", [old | {"version": 2}, event(A, A1)])

    assert rings(project) == [(f"tenant:{A}", "calendar_events", 1)] * 2


def test_the_doorbell_rings_for_a_deletion(project: PlainSupabase) -> None:
    row = event(A, A1)
    project.apply("events", [row])
    project.execute("truncate realtime.messages")

    project.apply("events", [row | {"version": 2, "deleted_at": DELETED}])

    assert rings(project) == [(f"tenant:{A}", "calendar_events", 1)]


def test_the_doorbell_stays_silent_when_nothing_changed(project: PlainSupabase) -> None:
    row = event(A, A1, version=5)
    project.apply("events", [row])
    project.execute("truncate realtime.messages")

    project.apply("events", [row])
    project.apply("events", [row | {"version": 4}])
    project.apply("events", [])
    project.execute("update public.calendar_events set title = 'past the function'")

    assert rings(project) == []


def test_the_doorbell_is_private_and_says_nothing_of_what_changed(project: PlainSupabase) -> None:
    project.apply("events", [event(A, A1, title="Secret", version=7)])

    (ring,) = project.rows("select private, event, extension, payload from realtime.messages")
    assert ring["private"] is True
    assert (ring["event"], ring["extension"]) == ("changed", "broadcast")
    assert ring["payload"] == {"table": "calendar_events", "rows": 1, "version": 7}


def test_rows_arrive_although_the_doorbell_is_broken(bare_bell: PlainSupabase) -> None:
    answer = bare_bell.apply("events", [event(A, A1)])

    assert answer["applied"] == 1


@pytest.fixture
def bare_bell(project: PlainSupabase) -> Any:
    """Realtime refuses every message."""
    project.execute("alter table realtime.messages add constraint broken check (topic = '') not valid")
    yield project
    project.execute("alter table realtime.messages drop constraint broken")


@pytest.mark.parametrize(
    ("role", "claims", "topic", "heard"),
    [
        ("authenticated", member(A), f"tenant:{A}", True),
        ("authenticated", member(A, workspace_ids=[A2]), f"tenant:{A}", True),
        ("authenticated", member(B), f"tenant:{A}", False),
        ("authenticated", member(A), f"tenant:{B}", False),
        ("authenticated", member(A), "tenant:", False),
        ("authenticated", member(None), "tenant:", False),
        ("authenticated", {"user_metadata": {"tenant_id": A}}, f"tenant:{A}", False),
        ("authenticated", {}, f"tenant:{A}", False),
        ("anon", member(A), f"tenant:{A}", False),
        ("service_role", {}, f"tenant:{A}", True),
    ],
)
def test_p105_only_members_may_hear_their_tenants_topic(
    project: PlainSupabase, role: str, claims: dict[str, Any], topic: str, heard: bool
) -> None:
    project.apply("events", [event(A, A1)])

    found = project.ask(role, "select id from realtime.messages", claims=claims, topic=topic)

    assert bool(found) is heard


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_p105_members_cannot_ring(project: PlainSupabase, role: str) -> None:
    ring = "insert into realtime.messages (topic, extension, event, private) values (%s, 'broadcast', 'changed', true)"

    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        project.ask(role, ring, (f"tenant:{A}",), claims=member(A), topic=f"tenant:{A}")


def test_a_rejected_row_is_named_with_id_version_and_sqlstate_and_rings_nobody(project: PlainSupabase) -> None:
    bad, good = event(A, A1, title=None, status=None, version=3), event(B, B1)

    answer = project.apply("events", [bad, good])

    assert answer["rejected"] == [{"id": bad["id"], "version": 3, "sqlstate": "23514"}]
    assert (answer["received"], answer["applied"]) == (2, 1)
    assert rings(project) == [(f"tenant:{B}", "calendar_events", 1)]


def test_a_table_that_the_mirror_does_not_know_is_an_error_of_its_own(project: PlainSupabase) -> None:
    with pytest.raises(psycopg2.errors.UndefinedObject, match="mirror_apply knows no secrets"):
        project.ask("service_role", "select public.mirror_apply('secrets', %s::jsonb)", (json.dumps([]),))


def test_a_purge_removes_old_tombstones_and_nothing_else(populated: PlainSupabase) -> None:
    (early,) = populated.ask("service_role", "select public.mirror_purge(%s) as gone", (DELETED,))
    (late,) = populated.ask("service_role", "select public.mirror_purge(now()) as gone")

    assert (early["gone"], late["gone"]) == (0, 9)
    assert len(populated.rows("select 1 from public.calendar_events where deleted_at is null")) == 3
