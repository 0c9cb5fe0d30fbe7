"""What every adapter owes (tenantsync/calendars/provider.py), as tests. Each adapter's own file subclasses them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from tenantsync.errors import CalendarUnavailable, CursorVoid, GrantRevoked
from tenantsync.outbound import Meter
from tests.contract.provider_parts import CALLS, Call, Held, There, audit, changes, further_changes

TITLES = {
    "emoji of several parts": "Launch 🎉 👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈",
    "right to left": "פגישה מחר؛ اجتماع",
    "combining marks": "cafe\u0301 과 ｶﾀｶﾅ ẞ",
    "astral letters": "𝔗𝔢𝔫𝔞𝔫𝔱 𠜎",
    "a tab and a backslash": "left\tright \\ \\t \\n",
    "two lines": "first\nsecond",
    "the marker of null": "\\N",
    "the end of data": "\\.",
    "quotes and separators": "a;b,c:d \"e\" 'f' {g} %h &amp; <i>",
    "looks like a property": "END:VEVENT",
}


class ProviderContract:
    @pytest.fixture
    async def there(self) -> AsyncIterator[There]:
        raise NotImplementedError
        yield

    @pytest.fixture
    async def held(self, there: There) -> Held:
        """The first calendar, filled and listed."""
        there.fill({f"event{n:02}": f"Event {n}" for n in range(12)})
        held = Held()
        await held.take(there.door)
        return held

    # Discovery

    async def test_discovery_names_the_account_and_every_calendar_the_same_each_time(self, there: There) -> None:
        door = there.door

        first, second = [await door.provider.discover(door.credentials, door.endpoint, Meter()) for _ in range(2)]

        assert first == second
        assert first.identity
        assert {one.calendar for one in there.doors} <= {one.provider_key for one in first.calendars}
        assert all(one.name for one in first.calendars)

    # Listings and deltas

    async def test_a_full_listing_brings_everything_that_is_there(self, there: There) -> None:
        there.fill({f"event{n:02}": f"Event {n}" for n in range(12)})
        held = Held()

        pages = await held.take(there.door)

        assert held.titles() == there.titles()
        assert {page.full for page in pages} == {True}

    async def test_an_empty_calendar_answers_with_a_cursor_and_nothing_else(self, there: There) -> None:
        held = Held()

        await held.take(there.door)

        assert held.rows == {}
        assert held.cursor

    async def test_the_last_page_alone_has_the_cursor(self, there: There) -> None:
        there.fill({f"event{n:03}": f"Event {n}" for n in range(there.small_pages())})

        pages = await Held().take(there.door)

        assert len(pages) >= 3
        assert [page.cursor for page in pages[:-1]] == [None] * (len(pages) - 1)
        assert pages[-1].cursor
        assert {page.full for page in pages} == {True}

    async def test_where_nothing_changed_a_delta_is_empty(self, there: There, held: Held) -> None:
        pages = await held.take(there.door)

        assert [row for page in pages for row in page.rows if row.kind != "k"] == []
        assert held.titles() == there.titles()

    async def test_a_delta_brings_insertions_changes_and_deletions_alone(self, there: There, held: Held) -> None:
        there.put("added", "New")
        there.put("event03", "Changed")
        there.delete("event05", "event06")

        pages = await held.take(there.door)

        assert sorted(row.kind for page in pages for row in page.rows) == ["d", "d", "u", "u"]
        assert held.titles() == there.titles()

    async def test_what_came_and_went_between_two_deltas_harms_nothing(self, there: There, held: Held) -> None:
        there.put("guest")
        there.delete("guest")

        await held.take(there.door)

        assert held.titles() == there.titles()

    async def test_the_same_cursor_gives_the_same_outcome_again(self, there: There, held: Held) -> None:
        there.put("event03", "Changed")
        there.delete("event05")
        twin = held.copy()

        await held.take(there.door)
        await twin.take(there.door)

        assert twin.digests() == held.digests()
        assert twin.titles() == there.titles()

    async def test_an_answer_applied_twice_changes_nothing_the_second_time(self, there: There, held: Held) -> None:
        there.put("event03", "Changed")
        there.delete("event05")
        pages = await held.take(there.door)
        before = held.digests()

        held.apply(pages)

        assert held.digests() == before

    async def test_an_older_cursor_still_leads_to_what_is_there_now(self, there: There, held: Held) -> None:
        old = held.copy()
        there.put("event03", "Changed")
        await held.take(there.door)
        there.put("event03", "Changed again")
        there.delete("event05")

        await old.take(there.door)

        assert old.titles() == there.titles()

    async def test_changes_while_paging_appear_in_the_answer_or_in_the_next(self, there: There) -> None:
        count = there.small_pages()
        there.fill({f"event{n:03}": f"Event {n}" for n in range(count)})
        held, pages = Held(), []

        async for page in there.door.changes(held):
            pages.append(page)
            there.put("event000", f"Changed after page {len(pages)}")
            there.put(f"added{len(pages)}", "New")
            there.delete(f"event{count - len(pages):03}")
        held.apply(pages)
        await held.take(there.door)

        assert held.titles() == there.titles()

    async def test_cursors_belong_to_one_calendar_alone(self, there: There, held: Held) -> None:
        there.put("other", "In the second calendar", second=True)

        pages = await held.take(there.door)

        assert [row for page in pages for row in page.rows if row.kind != "k"] == []

    async def test_an_adapter_keeps_nothing_that_another_would_miss(self, there: There, held: Held) -> None:
        there.put("event03", "Changed")
        there.delete("event05")

        await held.take(there.fresh())

        assert held.titles() == there.titles()

    async def test_a_listing_that_is_given_up_half_way_spoils_nothing(self, there: There) -> None:
        there.fill({f"event{n:03}": f"Event {n}" for n in range(there.small_pages())})
        held, half_way = Held(), asyncio.Event()

        async def dawdle() -> None:
            async for _ in there.door.changes(Held()):
                half_way.set()
                await asyncio.Event().wait()

        run = asyncio.create_task(dawdle())
        await half_way.wait()
        run.cancel()
        await asyncio.wait([run])

        await held.take(there.door)

        assert held.titles() == there.titles()

    # Void cursors

    async def test_a_void_cursor_says_so(self, there: There, held: Held) -> None:
        there.void_cursors()

        with pytest.raises(CursorVoid):
            await held.take(there.door)

    async def test_a_cursor_that_never_was_says_so(self, there: There, held: Held) -> None:
        held.cursor = f"{held.cursor}0000"

        with pytest.raises(CursorVoid):
            await held.take(there.door)

    async def test_after_a_void_cursor_a_full_listing_finds_what_was_deleted_meanwhile(
        self, there: There, held: Held
    ) -> None:
        there.delete("event05")
        there.void_cursors()
        held.cursor = None

        await held.take(there.door)

        assert held.titles() == there.titles()

    # What is in an event

    @pytest.mark.parametrize("title", TITLES.values(), ids=TITLES)
    async def test_a_title_arrives_as_it_was_written(self, there: There, title: str) -> None:
        there.put("event01", title)
        held = Held()

        await held.take(there.door)

        assert list(held.titles().values()) == [title]

    @pytest.mark.parametrize(("zone", "hour"), [("Europe/Berlin", 8), ("America/New_York", 14), ("Asia/Kolkata", 3.5)])
    async def test_a_zone_arrives_with_the_moment_that_it_means(self, there: There, zone: str, hour: float) -> None:
        there.put("event01", zone=zone)
        held = Held()

        await held.take(there.door)

        ((row,),) = held.rows.values()
        moment = datetime(2026, 12, 1, tzinfo=UTC) + timedelta(hours=hour)
        assert [datetime.fromisoformat(text or "") for text in (row.starts_at, row.ends_at)] == [
            moment,
            moment + timedelta(hours=1),
        ]
        assert row.time_zone == zone

    async def test_a_long_text_arrives_whole(self, there: There) -> None:
        text = "".join(f"Line {n}: ünïcode, 🎉; and\\so on\n" for n in range(5000))
        there.put("event01", description=text)
        held = Held()

        await held.take(there.door)

        ((row,),) = held.rows.values()
        assert row.description == text

    async def test_what_cannot_be_an_event_is_set_aside_and_the_others_go_on(self, there: There, held: Held) -> None:
        resource = there.poison()
        there.put("event03", "Changed")

        await held.take(there.door)

        assert list(held.aside) == [resource]
        assert all(held.aside.values())
        assert held.titles() == {name: title for name, title in there.titles().items() if name != resource}

    # The audit

    async def test_the_audit_lists_what_is_there_with_the_digests_that_changes_gave(
        self, there: There, held: Held
    ) -> None:
        there.put("event03", "Changed 🎉")
        there.delete("event05")
        await held.take(there.door)

        listed = await there.door.audit()

        assert set(listed) == set(held.rows)
        assert [name for name, one in listed.items() if one.digest not in held.digests()[name]] == []
        assert all(one.visible for one in listed.values())

    async def test_the_audit_sees_what_no_delta_has_brought_yet(self, there: There, held: Held) -> None:
        there.put("event03", "Changed")
        there.delete("event05")

        listed = await there.door.audit()

        differing = {name for name, one in listed.items() if one.digest not in held.digests()[name]}
        assert len(differing) == 1
        assert set(listed) == set(there.titles())

    # Failures

    @pytest.mark.parametrize("call", CALLS)
    async def test_wrong_credentials_are_named_as_such(self, there: There, held: Held, call: Call) -> None:
        with pytest.raises(GrantRevoked):
            await call(there.stranger(), held)

    @pytest.mark.parametrize("call", [changes, further_changes, audit])
    async def test_a_calendar_that_is_not_there_is_named_as_such(self, there: There, held: Held, call: Call) -> None:
        there.remove_calendar()

        with pytest.raises(CalendarUnavailable):
            await call(there.door, held)

    # Many at once

    async def test_one_adapter_serves_many_runs_at_once(self, there: There, held: Held) -> None:
        there.fill({f"other{n:02}": f"Other {n}" for n in range(8)}, second=True)
        there.put("event03", "Changed")
        first, second = there.doors
        runs = [(first, held.copy()) for _ in range(8)] + [(door, Held()) for door in (first, second) for _ in range(8)]

        await asyncio.gather(*(run.take(door) for door, run in runs))

        assert [run.titles() for _, run in runs] == [there.titles()] * 16 + [there.titles(second=True)] * 8

    async def test_the_requests_and_bytes_of_a_run_are_counted(self, there: There, held: Held) -> None:
        meter, door = Meter(), there.door

        async for _ in door.provider.changes(door.credentials, door.wanted(Held()), meter):
            pass

        assert meter.calls >= 1
        assert meter.bytes >= 100
