"""Why a unit does not run: the chain's order, its words, its estimate, and whether it amounts to a reason."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db.repositories.explaining import CalendarFacts, Closure, Place, UnitFacts
from tenantsync.accounting.explain import NEVER, Budget, explain

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
EVERY = MINUTE
CALENDAR = CalendarFacts(
    state="synced",
    failures=0,
    last_error=None,
    due=NOW,
    account_id=UUID(int=1),
    provider="google",
    identity="ann@example.test",
    endpoint=None,
    account_state="connected",
    account_reason=None,
    account_since=NOW - HOUR,
    closed=None,
)
UNIT = UnitFacts(
    unit_id=UUID(int=2),
    tenant_id=UUID(int=3),
    tenant="acme",
    workspace="office",
    lane="sync",
    state="idle",
    next_due_at=NOW,
    lease_until=None,
    worker_id=None,
    crashes=0,
    parked_reason=None,
    rest=None,
    accounted_to=NOW - MINUTE,
    paused=False,
    pause_reason=None,
    paused_at=None,
    paused_by=None,
    isolated_until=None,
    isolated_reason=None,
    weight=1.0,
    cap=50,
    debt=0.0,
    at_cap=False,
    turn_paused=False,
    ready_at=NOW,
    now=NOW,
    calendars=(CALENDAR,),
)
PLACE = Place(
    in_flight=0, tenants_before=0, own_before=0, workers=1, slots=4, workers_silent=0.5, ticks_silent=1.0
)  # fmt: skip
CLOSED = Closure("account", "a-1", "http_429", NOW - MINUTE, NOW + 10 * MINUTE, None)
PAUSED = {"paused": True, "paused_by": "cli:ada", "paused_at": NOW - HOUR / 2, "pause_reason": "migration"}
LATER = {"next_due_at": NOW + 10 * MINUTE}


def unit(*calendars: dict[str, Any], **changes: Any) -> UnitFacts:
    """UNIT with changes; each of `calendars` is CALENDAR with changes, none is CALENDAR itself."""
    changed = tuple(replace(CALENDAR, **one) for one in calendars) or UNIT.calendars
    return replace(UNIT, **({"calendars": changed} | changes))


@pytest.mark.parametrize(
    ("facts", "place", "chain"),
    [
        (unit(), PLACE, [("due", "nothing holds it: it is due and is claimed at the next tick")]),
        (unit(**PAUSED), PLACE, [("paused", "paused by ada on 2026-11-21 09:00 UTC: migration")]),
        (unit(paused=True), PLACE, [("paused", "paused: no reason given")]),
        (
            unit(isolated_until=NOW + HOUR, isolated_reason="3 units killed their worker"),
            PLACE,
            [
                (
                    "isolated",
                    (
                        "its tenant runs in isolation until 2026-11-21 10:30:00 UTC (in 60 min): "
                        "3 units killed their worker"
                    ),
                )
            ],
        ),
        (
            unit(state="parked", parked_reason="its worker died 3 times", next_due_at=NOW + HOUR),
            PLACE,
            [
                (
                    "parked",
                    "parked because its worker died 3 times; it is tried again at 2026-11-21 10:30:00 UTC (in 60 min)",
                )
            ],
        ),
        (
            unit(state="parked", parked_reason="its worker died", next_due_at=NEVER),
            PLACE,
            [("parked", "parked because its worker died; `tenantsync parked retry` releases it")],
        ),
        (
            unit(calendars=(), next_due_at=NEVER),
            PLACE,
            [("no_calendars", "it has no calendars: `tenantsync account add` connects an account")],
        ),
        (
            unit({"account_state": "needs_reauth", "account_reason": "invalid_grant", "due": NOW + HOUR}, **LATER),
            PLACE,
            [
                (
                    "account",
                    (
                        "account google ann@example.test has to be connected again, since 2026-11-21 08:30 UTC: "
                        "invalid_grant"
                    ),
                ),
                ("not_due", "it is not due until 2026-11-21 09:40:00 UTC (in 10 min)"),
            ],
        ),
        (
            unit({"closed": CLOSED, "due": NOW + 10 * MINUTE}, **LATER),
            PLACE,
            [
                (
                    "cooldown",
                    (
                        "account a-1 is closed until 2026-11-21 09:40:00 UTC (in 10 min), because its provider "
                        "answered http_429 at 2026-11-21 09:29 UTC"
                    ),
                ),
                ("not_due", "it is not due until 2026-11-21 09:40:00 UTC (in 10 min)"),
            ],
        ),
        (
            unit({"failures": 3, "last_error": "http_503", "due": NOW + 10 * MINUTE}, **LATER),
            PLACE,
            [
                (
                    "backoff",
                    (
                        "its calendar backs off after 3 failures in a row (http_503) until 2026-11-21 09:40:00 UTC "
                        "(in 10 min)"
                    ),
                ),
                ("not_due", "it is not due until 2026-11-21 09:40:00 UTC (in 10 min)"),
            ],
        ),
        (
            unit(next_due_at=NOW + timedelta(seconds=42)),
            PLACE,
            [("not_due", "it is not due until 2026-11-21 09:30:42 UTC (in 42 s)")],
        ),
        (
            unit(),
            replace(PLACE, in_flight=50),
            [("at_cap", "its tenant has 50 units running in this lane, and may have 50 at once")],
        ),
        (
            unit(state="running", worker_id="celery@one", lease_until=NOW + timedelta(seconds=4)),
            PLACE,
            [
                (
                    "running",
                    "it is running: worker celery@one holds its lease until 2026-11-21 09:30:04 UTC (in 4 s)",
                )
            ],
        ),
        (
            unit(state="running", worker_id="celery@one", lease_until=NOW - MINUTE),
            PLACE,
            [("lease_ended", "its worker celery@one was lost at 2026-11-21 09:29 UTC; it is due again")],
        ),
        (
            unit(weight=2.0, debt=7.25),
            replace(PLACE, tenants_before=12, own_before=3),
            [
                (
                    "share",
                    ("before it in the lane sync: 12 tenants and 3 units of its own tenant (weight 2, debt 7.2)"),
                )
            ],
        ),
        (
            unit(),
            replace(PLACE, workers=0, workers_silent=None),
            [("no_worker", "no live worker serves the queue sync: none was ever heard of; start one")],
        ),
        (
            unit(),
            replace(PLACE, ticks_silent=600.0),
            [("no_beat", "no tick has come for 10 min: is a beat running, and does Redis answer?")],
        ),
    ],
    ids=lambda value: value[0][0] if isinstance(value, list) else "",
)
def test_each_link_says_what_holds_the_unit(facts: UnitFacts, place: Place, chain: list[tuple[str, str]]) -> None:
    explanation = explain(facts, every=EVERY, place=place)

    assert [(link.kind, link.text) for link in explanation.links] == chain
    assert not explanation.lost


def test_links_come_from_the_outside_inwards() -> None:
    facts = unit(
        {"closed": CLOSED, "failures": 2, "due": NOW + 5 * MINUTE},
        {"account_state": "unusable", "account_id": UUID(int=9), "due": NOW + HOUR},
        **PAUSED,
        isolated_until=NOW + HOUR,
        next_due_at=NOW + 5 * MINUTE,
    )

    explanation = explain(facts, every=EVERY, place=PLACE, budgets=[Budget("account", "google/ann", 4.0)])

    kinds = [link.kind for link in explanation.links]
    assert kinds == ["paused", "isolated", "account", "cooldown", "budget", "backoff", "not_due"]


@pytest.mark.parametrize(
    ("facts", "budgets", "runs_in"),
    [
        (unit(), [], 1),
        (unit(next_due_at=NOW + timedelta(seconds=42)), [], 43),
        (unit({"closed": CLOSED}), [], 601),
        (unit({"closed": CLOSED}, {}), [], 1),
        (unit(), [Budget("account", "google/ann", 4.0)], 5),
        (unit(state="parked", next_due_at=NOW + HOUR), [], 3601),
        (unit(state="running", lease_until=NOW + MINUTE), [], 0),
        (unit(**PAUSED), [], None),
        (unit({"account_state": "needs_reauth"}), [], None),
        (unit(calendars=(), next_due_at=NEVER), [], None),
    ],
)
def test_the_estimate_is_when_the_last_of_what_holds_it_ends(
    facts: UnitFacts, budgets: list[Budget], runs_in: float | None
) -> None:
    explanation = explain(facts, every=EVERY, place=PLACE, budgets=budgets)

    assert explanation.runs_at == (None if runs_in is None else NOW + timedelta(seconds=runs_in))


RESTING = {"due": NOW + HOUR}


@pytest.mark.parametrize(
    ("facts", "rest", "lost"),
    [
        (unit(), None, False),
        (unit(next_due_at=NOW + MINUTE), None, False),
        (unit(RESTING | {"failures": 1}, next_due_at=NOW + HOUR), "backoff", False),
        (unit(RESTING | {"state": "lost"}, next_due_at=NOW + HOUR), "lost", False),
        (unit(RESTING | {"account_state": "needs_reauth"}, next_due_at=NOW + HOUR), "needs_reauth", False),
        (unit(RESTING | {"closed": CLOSED}, next_due_at=NOW + HOUR), "cooldown", False),
        (unit(RESTING, next_due_at=NOW + HOUR, rest="budget"), "budget", False),
        (unit({}, next_due_at=NOW + HOUR, rest="cooldown"), "cooldown", False),
        (unit(state="parked", next_due_at=NOW + HOUR), "parked", False),
        (unit(calendars=(), next_due_at=NEVER), "no_calendars", False),
        (unit(RESTING, next_due_at=NOW + HOUR), None, True),
        (unit({"failures": 1, "due": NOW + MINUTE}, next_due_at=NOW + HOUR), None, True),
        (unit(RESTING, next_due_at=NEVER, rest="backoff"), None, True),
        (unit({}, next_due_at=NEVER, rest="cooldown"), "cooldown", True),
        (unit(state="parked", next_due_at=NEVER), "parked", False),
        (unit(ready_at=NOW + HOUR), None, True),
        (unit(turn_paused=True), None, True),
        (unit(ready_at=None, turn_paused=None), None, True),
        (unit(**PAUSED, turn_paused=True, ready_at=NEVER), None, False),
        (unit(state="running", lease_until=NOW + MINUTE, ready_at=NEVER), None, False),
    ],
)
def test_only_a_declared_reason_explains_a_unit_that_is_behind(facts: UnitFacts, rest: str | None, lost: bool) -> None:
    explanation = explain(facts, every=EVERY)

    assert (explanation.rest, explanation.lost) == (rest, lost)
    assert not lost or "lost" in explanation.links[-1].text
