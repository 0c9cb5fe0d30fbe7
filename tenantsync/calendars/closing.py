"""Closing scopes because a provider said so, with what follows for whom it concerns, and opening them again.

Everything here runs in the transaction that ends the runs which found it out: it holds their units' rows.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from db.repositories import scopes
from db.repositories.units import DueCalendar
from tenantsync.calendars import probing
from tenantsync.calendars.probing import CooledScope
from tenantsync.calendars.rules import Closed
from tenantsync.calendars.runs import CalendarOutcome, UnitOutcome
from tenantsync.headers import RATE_PAUSE
from tenantsync.limits import rules

log = structlog.get_logger(__name__)

Row = dict[str, Any]


def as_row(closed: Closed, about: DueCalendar) -> Row:
    """A closing as db/repositories/scopes.py wants it."""
    ids = {"account": str(about.account_id), "tenant": str(about.tenant_id)}
    return {
        "scope": closed.scope,
        "scope_id": ids.get(closed.scope, about.provider),
        "seconds": closed.seconds,
        "reason": closed.reason,
        "given": closed.given,
    }


def close(connection: Connection, closed: Sequence[Row]) -> None:
    """Close scopes, and put off what they concern, so that nobody claims it before they open.

    Calendars of a closed account and turns of a closed tenant are moved; the claim itself passes over units of a
    closed project or provider. Refusals of many accounts close the project that they share.
    """
    scopes.close(connection, closed)
    accounts = sorted({row["scope_id"] for row in closed if row["scope"] == "account"})
    if accounts:
        scopes.put_off_accounts(connection, accounts)
    tenants = sorted({row["scope_id"] for row in closed if row["scope"] == "tenant"})
    if tenants:
        scopes.put_off_tenants(connection, tenants)
    if any(row["scope"] == "account" and row["reason"] in rules.QUOTA_REASONS for row in closed):
        _learn(connection)


def _learn(connection: Connection) -> None:
    """Close a project when so many of its accounts were refused that it must be the project that is over its quota."""
    found = scopes.refused(
        connection,
        reasons=rules.QUOTA_REASONS,
        providers=sorted(rules.WITH_PROJECT),
        within=timedelta(seconds=rules.LEARNED_WITHIN),
    )
    learned = [one for one in found if rules.concerns_project(accounts=one.accounts, tenants=one.tenants)]
    if learned:
        log.warning("project_closed", providers=[one.provider for one in learned])
        scopes.close(connection, [_project(one) for one in learned])


def _project(refused: scopes.Refused) -> Row:
    within = f"{rules.LEARNED_WITHIN:g} s"
    return {
        "scope": "project",
        "scope_id": refused.provider,
        "seconds": RATE_PAUSE,
        "reason": f"quota: {refused.accounts} accounts of {refused.tenants} tenants were refused within {within}",
        "given": False,
    }


def settle_probes(connection: Connection, outcomes: Sequence[UnitOutcome]) -> None:
    """Open what was tried with success; leave the rest to the next probe. Before `close`, which may close it again."""
    opened: set[CooledScope] = set()
    given_up: set[CooledScope] = set()
    for outcome in outcomes:
        if outcome.probes:
            tried = [(probing.half_open(one.calendar), _served(one)) for one in outcome.calendars]
            found = {scope for scope in outcome.probes if any(scope in scopes and ok for scopes, ok in tried)}
            opened |= found
            given_up |= outcome.probes - found
    if opened:
        scopes.open_scopes(connection, opened)
    if given_up:
        scopes.give_up_probes(connection, given_up)


def _served(outcome: CalendarOutcome) -> bool:
    """Whether the provider dealt with the request, whatever it thought of it; a network's failure says nothing."""
    if outcome.success or outcome.bulk:
        return True
    verdict = outcome.verdict
    if verdict is None:  # an empty listing that awaits its confirmation
        return outcome.attempted
    return verdict.closed is None and (verdict.state is not None or verdict.account_state is not None)
