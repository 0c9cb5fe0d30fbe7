"""Fleets that live through outages, and whether all of Google's changes arrived in the end."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from sandbox.google.control import GoogleControl
from sandbox.google.specs import FleetSpec, SeedSpec
from tests.support.fleet import Fleet
from tests.support.waiting import wait_until

LOST = "update sync.units set lease_until = now() - interval '1 second' where lease_until is not null"
STORED = """
select c.provider_key as email, e.provider_key, e.raw from sync.events e
  join sync.calendars c using (tenant_id, calendar_id) where e.status <> 'cancelled'
"""


def settle_crowd(fleet: Fleet, google: GoogleControl, tenants: int) -> list[str]:
    """E-mail addresses of tenants with a small calendar each, synced; changes wait at Google for all of them."""
    accounts = google.seed_fleet(FleetSpec(accounts=tenants, seed=SeedSpec(events=6, series_every=0)))
    for account in accounts:
        fleet.google(fleet.tenant(account.email), google, account=account)
    fleet.run()
    for account in accounts:
        google.churn(3, account=account.email)
    fleet.due()
    return [account.email for account in accounts]


def run_together(*fleets: Fleet) -> int:
    """Each claims and runs what is due, at the same time; returns the number of unit runs."""
    with ThreadPoolExecutor(len(fleets)) as threads:
        return sum(threads.map(Fleet.run, fleets))


def in_step(fleet: Fleet, google: GoogleControl, emails: list[str]) -> bool:
    """Whether Postgres has of every tenant what Google has, to the last byte."""
    stored: dict[str, dict[str, Any]] = {email: {} for email in emails}
    for row in fleet.rows(STORED):
        stored[row["email"]][row["provider_key"]] = row["raw"]
    truth = {
        email: {event["id"]: event for event in google.truth(email, email) if event["status"] != "cancelled"}
        for email in emails
    }
    return stored == truth


def await_recovery(*fleets: Fleet, google: GoogleControl, emails: list[str], longest: float = 30.0) -> None:
    """Go on as beat would, every lease that was lost having ended, until everything has arrived."""

    def recovered() -> bool:
        try:
            fleets[0].execute(LOST)
            run_together(*fleets)
            return in_step(fleets[0], google, emails)
        except SQLAlchemyError:
            return False

    wait_until(recovered, about="the work that was interrupted", longest=longest)
