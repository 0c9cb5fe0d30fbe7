"""Tasks, processes and their events at Supabase: who may ask and see, what wins, what rings."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2.errors
import pytest

from tests.support.plain_supabase import PlainSupabase, Row

A, B = "0a000000-0000-7000-8000-00000000000a", "0b000000-0000-7000-8000-00000000000b"
A1, A2 = "10000000-0000-7000-8000-000000000000", "20000000-0000-7000-8000-000000000000"
P, Q = "0c000000-0000-7000-8000-00000000000c", "0d000000-0000-7000-8000-00000000000d"
NOW = "2026-03-01T10:00:00+00:00"
ASK = "insert into public.tasks (tenant_id, workspace_id, kind, payload) values (%s, %s, 'calendar.report', '{}')"
TABLES = ("tasks", "processes", "process_events")


def member(tenant: str | None, **more: Any) -> dict[str, Any]:
    return {"sub": str(uuid.uuid4()), "app_metadata": {"tenant_id": tenant, **more}}


def process(process_id: str, tenant: str, workspace: str | None = None, **changes: Any) -> Row:
    row = {"id": process_id, "tenant_id": tenant, "workspace_id": workspace, "version": 1, "kind": "k", "title": "t"}
    row |= {"state": "running", "step_durations": {}, "completed_steps": 0, "priority": 5, "tags": ["a"]}
    row |= {"retry_count": 0, "max_retries": 3, "pause_requested": False, "started_by": "system", "created_at": NOW}
    return row | changes


def event(process_id: str, sequence: int, tenant: str = A, **changes: Any) -> Row:
    row = {"process_id": process_id, "sequence": sequence, "id": str(uuid.uuid4()), "tenant_id": tenant}
    row |= {"event_type": "step_update", "event_data": {"step": "a"}, "event_category": "process", "event_priority": 3}
    return row | {"event_source": "worker", "created_at": NOW} | changes


def ask_for_task(project: PlainSupabase, tenant: str, workspace: str | None = None) -> str:
    """As a member of the tenant; returns the task's id."""
    (row,) = project.ask("authenticated", ASK + " returning id", (tenant, workspace), claims=member(tenant))
    return str(row["id"])


def taken_in(project: PlainSupabase, task: str, tenant: str = A, *, version: int = 5, **changes: Any) -> Row:
    row = {"id": task, "tenant_id": tenant, "status": "processing", "worker_id": "w", "version": version}
    return project.apply("tasks", [row | changes])


def task(project: PlainSupabase, task_id: str) -> Row:
    (row,) = project.rows("select * from public.tasks where id = %s", (task_id,))
    return row


def rings(project: PlainSupabase) -> list[tuple[str, str, Row]]:
    found = project.rows("select topic, event, payload from realtime.messages order by inserted_at, topic, event")
    return [(row["topic"], row["event"], row["payload"]) for row in found]


def silence(project: PlainSupabase) -> None:
    project.execute("truncate realtime.messages")


@pytest.fixture
def populated(project: PlainSupabase) -> PlainSupabase:
    """One row of each kind for tenant A as a whole, for one of its workspaces, and for tenant B."""
    for tenant, workspace in ((A, None), (A, A1), (B, None)):
        ask_for_task(project, tenant, workspace)
        one = str(uuid.uuid4())
        project.apply("processes", [process(one, tenant, workspace)])
        project.apply("process_events", [event(one, 1, tenant, workspace_id=workspace)])
    silence(project)
    return project


# Asking


MANY = "insert into public.tasks (tenant_id, kind) select %s, 'k' from generate_series(1, %s)"


def test_a_tenant_that_floods_is_stopped_and_keeps_nobody_from_asking(project: PlainSupabase) -> None:
    mine, theirs = member(A) | {"role": "authenticated"}, member(B) | {"role": "authenticated"}
    project.ask("authenticated", MANY, (A, 1000), claims=mine)

    for count in (1, 100_000):
        with pytest.raises(psycopg2.Error, match="wait to be taken in"):
            project.ask("authenticated", MANY, (A, count), claims=mine)
    project.ask("authenticated", MANY, (B, 1000), claims=theirs)
    project.ask("service_role", MANY, (A, 1001), claims={"role": "service_role"})
    project.ask("service_role", "update public.tasks set version = 1 where tenant_id = %s", (A,))
    project.ask("authenticated", MANY, (A, 1), claims=mine)

    assert project.rows("select count(*) as n from public.tasks where version = 0")[0]["n"] == 1001


def test_a_member_asks_for_a_task_and_sees_it(project: PlainSupabase) -> None:
    claims = member(A)

    project.ask("authenticated", ASK, (A, None), claims=claims)

    (seen,) = project.ask("authenticated", "select * from public.tasks", claims=claims)
    assert (seen["status"], seen["version"], seen["priority"]) == ("pending", 0, 5)
    assert seen["created_by"] == claims["sub"]


def test_the_asker_needs_no_uuid_for_a_name(project: PlainSupabase) -> None:
    project.ask("authenticated", ASK, (A, None), claims=member(A) | {"sub": "user_2x"})

    assert [row["created_by"] for row in project.rows("select created_by from public.tasks")] == ["user_2x"]


@pytest.mark.parametrize(
    ("claims", "workspace"),
    [
        (member(B), None),
        (member(B), A1),
        (member(None), None),
        (member(""), None),
        ({}, None),
        ({"user_metadata": {"tenant_id": A}}, None),
        (member(A, workspace_ids=[A2]), A1),
        (member(A, workspace_ids=[A2]), None),
    ],
)
def test_a_member_asks_for_nobody_else(project: PlainSupabase, claims: dict[str, Any], workspace: str | None) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="row-level security"):
        project.ask("authenticated", ASK, (A, workspace), claims=claims)

    assert project.rows("select 1 from public.tasks") == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "'completed'"),
        ("version", "7"),
        ("result", "'{}'"),
        ("created_by", "'somebody'"),
        ("created_at", "now()"),
        ("worker_id", "'w'"),
        ("cancel_requested_at", "now()"),
    ],
)
def test_a_member_says_nothing_but_what_is_asked(project: PlainSupabase, column: str, value: str) -> None:
    attempt = f"insert into public.tasks (tenant_id, kind, {column}) values ('{A}', 'k', {value})"

    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="permission denied"):
        project.ask("authenticated", attempt, claims=member(A))


@pytest.mark.parametrize(
    "values",
    [
        "'', '{}', 5",
        "repeat('k', 101), '{}', 5",
        "'k', '{}', 0",
        "'k', '{}', 11",
        "'k', jsonb_build_array(repeat('x', 262144)), 5",
    ],
)
def test_a_task_that_is_out_of_bounds_is_refused(project: PlainSupabase, values: str) -> None:
    attempt = f"insert into public.tasks (tenant_id, kind, payload, priority) values ('{A}', {values})"

    with pytest.raises(psycopg2.errors.CheckViolation):
        project.ask("authenticated", attempt, claims=member(A))


@pytest.mark.parametrize(
    "attempt",
    [
        ASK.replace("%s", f"'{A}'"),
        "select * from public.tasks",
        "select * from public.processes",
        "select * from public.process_events",
        "update public.tasks set cancel_requested_at = now()",
    ],
)
def test_who_is_not_signed_in_may_do_nothing(populated: PlainSupabase, attempt: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        populated.ask("anon", attempt, claims=member(A))


# Cancelling

CANCEL = "update public.tasks set cancel_requested_at = now() where id = %s returning id"


def test_a_member_asks_for_a_task_to_be_cancelled(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)

    project.ask("authenticated", CANCEL, (asked,), claims=member(A))

    assert task(project, asked)["cancel_requested_at"] is not None


def test_the_wish_to_cancel_has_the_databases_time_and_stays(project: PlainSupabase) -> None:
    asked, wish = ask_for_task(project, A), "update public.tasks set cancel_requested_at = %s where id = %s"

    project.ask("authenticated", wish, ("2000-01-01", asked), claims=member(A))
    project.ask("authenticated", wish, (None, asked), claims=member(A))

    assert abs(task(project, asked)["cancel_requested_at"] - datetime.now(UTC)) < timedelta(minutes=1)


def test_nobody_cancels_another_tenants_task(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)

    changed = project.ask("authenticated", CANCEL, (asked,), claims=member(B))

    assert (changed, task(project, asked)["cancel_requested_at"]) == ([], None)


def test_what_is_over_is_not_cancelled(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)
    taken_in(project, asked, status="completed")

    changed = project.ask("authenticated", CANCEL, (asked,), claims=member(A))

    assert changed == []


@pytest.mark.parametrize("column", ["status", "version", "tenant_id", "payload", "priority", "kind", "result"])
def test_a_member_changes_nothing_else_of_a_task(project: PlainSupabase, column: str) -> None:
    ask_for_task(project, A)

    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        project.ask("authenticated", f"update public.tasks set {column} = null", claims=member(A))


@pytest.mark.parametrize("table", TABLES)
def test_a_member_deletes_nothing(populated: PlainSupabase, table: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        populated.ask("authenticated", f"delete from public.{table}", claims=member(A))


@pytest.mark.parametrize("table", ["processes", "process_events"])
def test_a_member_writes_no_process_and_no_event(populated: PlainSupabase, table: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        populated.ask("authenticated", f"insert into public.{table} select * from public.{table}", claims=member(A))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        populated.ask("authenticated", f"update public.{table} set tenant_id = tenant_id", claims=member(A))


# Seeing


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("claims", "seen"),
    [
        (member(A), [(A, None), (A, A1)]),
        (member(B), [(B, None)]),
        (member(A, workspace_ids=[A1]), [(A, A1)]),
        (member(A, workspace_ids=[A2]), []),
        (member(A, workspace_ids=[]), []),
        (member(str(uuid.uuid4())), []),
        (member(""), []),
        ({}, []),
        ({"user_metadata": {"tenant_id": A}}, []),
    ],
)
def test_a_member_sees_the_own_tenants_rows_alone(
    populated: PlainSupabase, table: str, claims: dict[str, Any], seen: list[tuple[str, str | None]]
) -> None:
    query = f"select tenant_id, workspace_id from public.{table} order by tenant_id, workspace_id nulls first"

    rows = populated.ask("authenticated", query, claims=claims)

    assert [(row["tenant_id"], row["workspace_id"]) for row in rows] == seen


# What the workers bring


def test_a_task_comes_back_as_its_newest_version(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)

    taken_in(project, asked, version=7, status="completed", result={"n": 1})
    taken_in(project, asked, version=6)

    found = task(project, asked)
    assert (found["status"], found["version"], found["result"]) == ("completed", 7, {"n": 1})


def test_who_writes_past_the_function_cannot_bring_back_an_old_task(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)
    taken_in(project, asked, version=7, status="completed")

    project.ask("service_role", "update public.tasks set status = 'pending', version = 6")

    assert task(project, asked)["status"] == "completed"


def test_a_task_that_its_web_app_deleted_is_not_brought_back(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)
    project.execute("delete from public.tasks")

    answer = taken_in(project, asked)

    assert answer == {"received": 1, "applied": 0, "rejected": []}
    assert project.rows("select 1 from public.tasks") == []


def test_what_comes_back_leaves_the_wish_to_cancel_alone(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)
    project.ask("authenticated", CANCEL, (asked,), claims=member(A))

    taken_in(project, asked)

    found = task(project, asked)
    assert (found["status"], found["cancel_requested_at"] is not None) == ("processing", True)


def test_a_row_never_changes_its_tenant(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)
    project.apply("processes", [process(P, A)])

    taken_in(project, asked, B)
    project.apply("processes", [process(P, B, version=2)])

    assert (task(project, asked)["version"], task(project, asked)["tenant_id"]) == (0, A)
    assert [row["tenant_id"] for row in project.rows("select tenant_id from public.processes")] == [A]


def test_an_older_process_never_overwrites_a_newer_one(project: PlainSupabase) -> None:
    project.apply("processes", [process(P, A, version=3, state="completed"), process(P, A, version=2)])
    project.apply("processes", [process(P, A, version=1)])
    project.execute("update public.processes set state = 'running', version = 3")

    (found,) = project.rows("select state, version, tags from public.processes")
    assert found == {"state": "completed", "version": 3, "tags": ["a"]}


def test_events_that_come_twice_are_there_once(project: PlainSupabase) -> None:
    rows = [event(P, number) for number in range(1, 6)]

    first, again = project.apply("process_events", rows[:3]), project.apply("process_events", rows)

    assert (first["applied"], again["applied"]) == (3, 2)
    found = project.rows("select sequence from public.process_events order by sequence")
    assert [row["sequence"] for row in found] == [1, 2, 3, 4, 5]


def test_a_refused_event_stops_its_own_process_and_only_what_comes_later(project: PlainSupabase) -> None:
    rows = [event(one, number) for number in range(1, 6) for one in (P, Q)]
    bad = next(row for row in rows if row["process_id"] == P and row["sequence"] == 3)
    bad["event_source"] = None

    answer = project.apply("process_events", rows)

    found = project.rows(
        "select process_id, array_agg(sequence order by sequence) as n from public.process_events group by 1"
    )
    assert {row["process_id"]: row["n"] for row in found} == {P: [1, 2], Q: [1, 2, 3, 4, 5]}
    assert [(one["id"], one["sqlstate"]) for one in answer["rejected"]] == [(bad["id"], "23502")]
    assert answer["applied"] == 7


# Purging


def test_a_purge_takes_old_events_by_category_and_processes_that_ended_long_ago(project: PlainSupabase) -> None:
    old, older = "2026-02-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00"
    project.apply(
        "process_events",
        [
            event(P, 1, created_at=older),
            event(P, 2, created_at=old),
            event(P, 3, created_at=old, event_category="system"),
            event(P, 4, created_at=old, event_category="debug"),
            event(P, 5, event_category="system"),
        ],
    )
    project.apply("processes", [process(P, A), process(Q, A, completed_at=older, state="completed")])

    (gone,) = project.ask("service_role", "select public.process_purge('2026-01-15', '2026-02-15') as n")

    assert gone["n"] == 4
    found = project.rows("select sequence from public.process_events order by sequence")
    assert [row["sequence"] for row in found] == [2, 5]
    assert [row["id"] for row in project.rows("select id from public.processes")] == [P]


@pytest.mark.parametrize(
    "call",
    [
        "process_purge(now(), now())",
        "mirror_apply_tasks('[]')",
        "mirror_apply_processes('[]')",
        "mirror_apply_process_events('[]')",
        "mirror_apply('tasks', '[]')",
    ],
)
@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_members_do_not_call_what_writes(project: PlainSupabase, role: str, call: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        project.ask(role, f"select public.{call}", claims=member(A))


# Doorbells


def test_events_ring_once_a_process_and_statement_with_the_highest_number(project: PlainSupabase) -> None:
    rows = [event(P, number) for number in (1, 2, 3)] + [event(Q, 1, B)]

    project.apply("process_events", rows)

    assert rings(project) == [
        (f"tenant:{A}", "process_events", {"table": "process_events", "process_id": P, "sequence": 3}),
        (f"tenant:{B}", "process_events", {"table": "process_events", "process_id": Q, "sequence": 1}),
    ]


def test_events_that_are_there_already_do_not_ring(project: PlainSupabase) -> None:
    rows = [event(P, 1)]
    project.apply("process_events", rows)
    silence(project)

    project.apply("process_events", rows)

    assert rings(project) == []


def test_processes_and_returned_tasks_ring_their_tenant(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)
    silence(project)

    project.apply("processes", [process(P, A)])
    taken_in(project, asked)

    assert [(topic, event, payload["table"]) for topic, event, payload in rings(project)] == [
        (f"tenant:{A}", "changed", "processes"),
        (f"tenant:{A}", "changed", "tasks"),
    ]


def test_a_new_task_rings_the_workers_and_says_nothing_of_the_tenant(project: PlainSupabase) -> None:
    ask_for_task(project, A)

    assert rings(project) == [("workers", "inserted", {"table": "tasks"})]


def test_a_cancelled_task_rings_the_workers_once(project: PlainSupabase) -> None:
    asked = ask_for_task(project, A)
    silence(project)

    for _ in range(2):
        project.ask("authenticated", CANCEL, (asked,), claims=member(A))

    assert [ring for ring in rings(project) if ring[0] == "workers"] == [("workers", "cancelled", {"table": "tasks"})]


@pytest.mark.parametrize(
    "idle",
    [
        "update public.tasks set cancel_requested_at = now() where false",
        "insert into public.tasks (tenant_id, kind) select tenant_id, kind from public.tasks where false",
    ],
)
def test_who_asks_for_nothing_rings_nobody(project: PlainSupabase, idle: str) -> None:
    project.ask("authenticated", idle, claims=member(A))

    assert rings(project) == []


def test_members_do_not_hear_the_workers_bell(project: PlainSupabase) -> None:
    ask_for_task(project, A)

    heard = project.ask("authenticated", "select * from realtime.messages", claims=member(A), topic="workers")

    assert heard == []
