"""Tasks that web apps ask for at Supabase: taken in once each, refused with a reason, brought back."""

import threading
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.ids import new_id
from tenantsync.schedule.occurrences import Unfinished
from tenantsync.work import intake
from tests.support.desk import Desk
from tests.support.fleet import TenantHandle
from tests.support.mirror import open_again, plant_calendar, plant_events
from tests.support.shared_database import database_url, shared_database
from tests.support.supabase_proxy import Trouble

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]
__all__ = ["database_url", "shared_database"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(300)

WORD = "Kanarienvogel"


def test_a_task_comes_back_with_its_result(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, payload={"words": ["dear", "friend"], "copies": 2}, created_by="user-7")

    seen = desk.done(asked)

    assert (seen["status"], seen["error_message"]) == ("completed", None)
    assert seen["result"] == {"text": "dear friend", "copies": 2}
    assert seen["started_at"] <= seen["completed_at"]
    assert seen["worker_id"] == "tasks@one"
    assert seen["version"] > 0
    assert desk.task(asked)["requested_by"] == "supabase:user-7"
    assert desk.process(asked)["started_by"] == "supabase:user-7"
    assert seen["process_id"] == str(desk.process(asked)["process_id"])
    assert desk.steps(asked)["compose"]["success"] is True
    assert desk.events(asked)[0] == "process_created"
    assert desk.events(asked)[-1] == "process_completed"


REFUSED: list[tuple[str, str, Any, str]] = [
    ("a kind that nobody handles", "letters.burn", {}, "nobody handles tasks of the kind 'letters.burn'"),
    ("a kind that is no name", f"<b>{WORD}</b>", {}, "nobody handles tasks of the kind '…'"),
    ("a field of the wrong type", "letters.write", {"copies": WORD}, "copies: Input should be a valid integer"),
    ("a field out of range", "letters.write", {"copies": 10}, "copies: Input should be less than or equal to 9"),
    ("a field that is no name", "letters.write", {"words": [WORD] * 4}, "words: List should have at most 3 items"),
    ("a list", "letters.write", [WORD], "the payload is a list: it should be a mapping"),
    ("a text", "letters.write", WORD, "the payload is a str: it should be a mapping"),
]


@pytest.mark.parametrize(("kind", "payload", "reason"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_what_cannot_be_done_fails_with_a_reason_that_quotes_nothing(
    desk: Desk, asker: TenantHandle, kind: str, payload: Any, reason: str
) -> None:
    asked = desk.ask(asker, kind, payload)

    seen = desk.done(asked)

    assert (seen["status"], seen["result"], seen["process_id"]) == ("failed", None, None)
    assert reason in seen["error_message"]
    assert WORD not in seen["error_message"]
    assert seen["completed_at"] is not None
    assert desk.fleet.rows("select * from process.processes") == []


def test_a_tenant_that_nobody_knows_is_told_so_at_supabase(desk: Desk, asker: TenantHandle) -> None:
    stranger = TenantHandle(new_id(), new_id(), "stranger")
    asked, ours = desk.ask(stranger), desk.ask(asker)

    took = desk.take_in()

    seen = desk.seen(asked)
    assert (seen["status"], seen["error_message"]) == ("failed", "the workers know no such tenant")
    assert (took["taken"], took["refused"]) == (1, 1)
    assert desk.done(ours)["status"] == "completed"
    assert desk.take_in()["refused"] == 0


def test_a_workspace_of_another_tenant_is_none(desk: Desk, asker: TenantHandle) -> None:
    other = desk.fleet.tenant("other")
    asked = desk.ask(asker, workspace_id=str(other.workspace_id))

    seen = desk.done(asked)

    assert (seen["status"], seen["error_message"]) == ("failed", "the tenant has no such workspace")
    assert desk.task(asked)["workspace_id"] is None


def test_a_task_of_no_workspace_is_the_whole_tenants(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, workspace_id=None)

    assert desk.done(asked)["status"] == "completed"


def test_a_payload_that_supabases_own_rule_let_pass_may_still_be_too_large(
    lenient_desk: Desk, asker: TenantHandle
) -> None:
    desk = lenient_desk
    asked, other = desk.ask(asker, payload={"words": ["x" * 10_000_000]}), desk.ask(asker)

    seen = desk.done(asked)

    assert seen["status"] == "failed"
    assert "bytes of JSON, and at most" in seen["error_message"]
    assert desk.task(other)["status"] == "completed"


class Hostile:
    """A Supabase that says what no Postgres holds."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def new(self, *, after: Any, limit: int) -> list[dict[str, Any]]:
        return self.rows

    def to_cancel(self, *, after: Any, limit: int) -> list[dict[str, Any]]:
        return []

    def refuse(self, rows: Any, *, now: str) -> None:
        raise AssertionError("nothing here is nobody's")


def test_what_no_postgres_holds_fails_and_blocks_nobody(desk: Desk, asker: TenantHandle) -> None:
    bad = ["a\x00b", "half \ud83d", 2**70, float("nan")]
    rows = [row_of(asker, kind="letters.write", payload={"words": [value]}) for value in bad]
    rows += [row_of(asker, kind="a\x00\ud800"), {"id": "none"}, {}, row_of(asker, created_by="x\x00y")]

    took = intake.take_in(desk.database, Hostile(rows), desk.handlers)

    found = {row["supabase_task_id"]: row for row in desk.fleet.rows("select * from worker.tasks")}
    reasons = [found[UUID(row["id"])]["error_log"] for row in rows[:4]]
    assert ["NUL" in reasons[0], "surrogate" in reasons[1], "64 bits" in reasons[2], "nan" in reasons[3]] == [True] * 4
    assert found[UUID(rows[4]["id"])]["status"] == "failed"
    assert found[UUID(rows[-1]["id"])]["status"] == "pending"
    assert (took["taken"], took["refused"], len(found)) == (1, 5, 6)


def row_of(tenant: TenantHandle, **columns: Any) -> dict[str, Any]:
    about = {"id": str(uuid4()), "tenant_id": str(tenant.tenant_id), "kind": "letters.write", "payload": {}}
    return about | {"priority": 5, "created_at": "2026-11-21T10:00:00+00:00"} | columns


def test_a_row_that_postgres_refuses_is_told_and_blocks_nobody(desk: Desk, asker: TenantHandle) -> None:
    desk.fleet.execute("alter table worker.tasks add constraint picky check (kind <> 'letters.steps')")
    bad, good = desk.ask(asker, "letters.steps"), desk.ask(asker)

    took = desk.take_in()
    desk.bring_back()

    desk.fleet.execute("alter table worker.tasks drop constraint picky")
    assert (took["unwritable"], took["taken"]) == (1, 1)
    assert (desk.seen(bad)["status"], desk.seen(bad)["error_message"]) == ("failed", "could not be written down")
    assert desk.task(good)["status"] == "pending"


def test_a_row_is_taken_in_once_however_often_it_is_seen(desk: Desk, asker: TenantHandle) -> None:
    desk.ask(asker)

    first, second = desk.take_in(), desk.take_in()

    assert (first["taken"], second["taken"], second["known"]) == (1, 0, 1)
    assert len(desk.fleet.rows("select * from worker.tasks")) == 1


def test_many_rows_are_taken_in_page_by_page_the_most_urgent_first(desk: Desk, asker: TenantHandle) -> None:
    asked = {desk.ask(asker, priority=10 - number % 10): number for number in range(30)}

    took = desk.take_in(page=4)

    rows = desk.fleet.rows("select supabase_task_id from worker.tasks order by id")
    places = [10 - asked[row["supabase_task_id"]] % 10 for row in rows]
    assert took["taken"] == 30
    assert places == sorted(places)


def test_rows_whose_return_is_on_its_way_do_not_hide_those_behind_them(desk: Desk, asker: TenantHandle) -> None:
    for _ in range(6):
        desk.ask(asker, priority=1)
    desk.take_in()
    late = desk.ask(asker, priority=9)

    took = desk.take_in(page=2)

    assert (took["known"], took["taken"]) == (6, 1)
    assert desk.task(late)["status"] == "pending"


def test_intakes_at_the_same_time_take_each_row_once(desk: Desk, asker: TenantHandle) -> None:
    for _ in range(20):
        desk.ask(asker)
    took: list[int] = []
    threads = [threading.Thread(target=lambda: took.append(desk.take_in(page=7)["taken"])) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(took) == 20
    assert len(desk.fleet.rows("select * from process.processes")) == 20


def test_a_deleted_row_is_not_brought_back_and_its_task_is_done(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker)
    desk.take_in()
    desk.mirror.execute("delete from public.tasks")

    desk.work()
    desk.bring_back()

    assert desk.task(asked)["status"] == "completed"
    assert desk.mirror.rows("select * from public.tasks") == []


# Supabase away


def test_work_goes_on_while_supabase_is_away_and_returns_later(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker)
    desk.take_in()
    desk.mirror.proxy.trouble(Trouble(status=503))

    desk.work()
    desk.bring_back()

    assert desk.task(asked)["status"] == "completed"
    assert desk.seen(asked)["status"] == "pending"

    desk.mirror.proxy.reset()
    desk.bring_back()

    assert desk.seen(asked)["status"] == "completed"


def test_an_intake_that_cannot_ask_says_why_and_keeps_what_it_took(desk: Desk, asker: TenantHandle) -> None:
    desk.ask(asker)
    desk.take_in()
    desk.ask(asker)
    desk.mirror.proxy.trouble(Trouble(status=503))

    with pytest.raises(Unfinished, match="Supabase: http_503"):
        desk.take_in()

    assert len(desk.fleet.rows("select * from worker.tasks")) == 1


def test_a_supabase_that_was_found_closed_is_not_asked(desk: Desk, asker: TenantHandle) -> None:
    desk.ask(asker)
    desk.mirror.proxy.trouble(Trouble(status=503))
    open_again(desk.database)
    plant_events(desk.database, asker, plant_calendar(desk.database, asker), 1)
    desk.mirror.drain(desk.database)
    asked = len(desk.mirror.proxy.calls)

    took = desk.take_in()

    assert took["taken"] == 0
    assert len(desk.mirror.proxy.calls) == asked


# Bells


def test_a_hundred_rings_are_answered_at_most_twice(desk: Desk, asker: TenantHandle) -> None:
    answers: list[dict[str, int] | None] = []
    for _ in range(100):
        intake.ring(desk.database)
        answers.append(intake.answer(desk.database, desk.source, desk.handlers))
    asked = desk.ask(asker)
    intake.ring(desk.database)
    desk.fleet.execute("update worker.bells set answered_at = answered_at - interval '1 second'")

    last = intake.answer(desk.database, desk.source, desk.handlers)

    assert 1 <= sum(one is not None for one in answers) <= 2
    assert last is not None
    assert last["taken"] == 1
    assert desk.task(asked)["status"] == "pending"
    assert intake.is_rung(desk.database) is False
    assert intake.answer(desk.database, desk.source, desk.handlers) is None
