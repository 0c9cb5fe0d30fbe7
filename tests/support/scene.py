"""A fleet that fails in front of everybody, and what it must tell nobody."""

import base64
import io
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from config.queues import Lane
from config.settings import Settings
from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.google.specs import SeedSpec
from tests.support.fleet import KEY, Fleet, TenantHandle
from tests.support.logs import captured_logs

ANN = "ann@example.test"
USER, PASSWORD = "p67", "Rohrdommel-7"
CONTENT: Mapping[str, Any] = {
    "summary": "Kanarienvogel",
    "description": "Papageientaucher",
    "location": "Eisvogelweg 12",
    "attendees": [{"email": "wiedehopf@example.test"}],
    "start": {"dateTime": "2026-12-01T09:00:00Z"},
    "end": {"dateTime": "2026-12-01T10:00:00Z"},
}
"""An event whose every text would be recognised."""
WORDS = ("Kanarienvogel", "Papageientaucher", "Eisvogelweg", "wiedehopf", "Zwergohreule")
ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//test//test//EN
BEGIN:VEVENT
UID:owl
SUMMARY:Zwergohreule
DTSTAMP:20261201T000000Z
DTSTART:20261201T100000Z
DTEND:20261201T110000Z
END:VEVENT
END:VCALENDAR
"""
TABLES = ("worker.tasks", "worker.execution_logs", "worker.system_metrics", "worker.audit_logs", "sync.cooldowns")
SENTENCES = """
select concat_ws(' ', c.last_error, c.state_reason, a.state_reason, u.parked_reason) as said
  from sync.calendars c join sync.accounts a using (account_id) join sync.units u on u.unit_id = c.workspace_id
"""
CURSORS = "select cursor from sync.calendars where cursor is not null"
PASS_TIME = """
with leases as (
  update sync.units set lease_until = now() - interval '1 second' where lease_until is not null returning 1)
update sync.cooldowns set until = now()
"""


@dataclass(slots=True)
class Scene:
    fleet: Fleet
    tenant: TenantHandle
    log: io.StringIO
    secrets: dict[str, str]
    raised: list[str] = field(default_factory=list)

    def sync(self) -> None:
        """One more sync, all lanes; what a task would report to Celery is kept."""
        self.fleet.execute(PASS_TIME)
        self.fleet.due()
        for lane in (Lane.SYNC, Lane.QUARANTINE, Lane.BULK):
            self.attempt(lambda lane=lane: self.fleet.run_lane(lane))  # type: ignore[misc]
        for row in self.fleet.rows(CURSORS):
            cursor = row["cursor"].removeprefix("sync:").removeprefix("ctag:")
            self.secrets[f"cursor {cursor[-8:]}"] = cursor

    def attempt(self, work: Callable[[], object]) -> str:
        """Do something that may fail; what Celery or a shell would show of it is kept, and returned."""
        try:
            self.raised.append(repr(work()))
        except Exception:  # noqa: BLE001 — whatever it is, it would be printed
            self.raised.append(traceback.format_exc())
        return self.raised[-1]

    def told(self) -> set[tuple[str, str]]:
        """(place, secret) of everything that got out to where people other than the tenant read."""
        places = {name: str(self.fleet.rows(f"select t::text from {name} t")) for name in TABLES}
        places["sentences"] = str(self.fleet.rows(SENTENCES))
        places |= {"log": self.log.getvalue(), "raised": "\n".join(self.raised)}
        return {
            (place, name) for place, text in places.items() for name, secret in self.secrets.items() if secret in text
        }


@contextmanager
def scene(settings: Settings, google: GoogleControl, **overrides: object) -> Iterator[Scene]:
    """A tenant with one Google calendar that holds a telling event, listed already."""
    chosen = settings.model_copy(update=overrides)
    with captured_logs(chosen) as log:
        database = Database(settings.database_url, pool_size=5, name="secrets")
        fleet = Fleet(database, chosen)
        try:
            account = google.create_account(ANN)
            google.seed(ANN, ANN, SeedSpec(events=5))
            google.insert(ANN, ANN, {"id": "bird0", **CONTENT})
            tenant = fleet.tenant()
            fleet.google(tenant, google, account=account)
            secrets = {
                "refresh token": account.refresh_token,
                "access token": "ya29.",
                "client secret": "stand-in-secret",
                "encryption key": KEY,
                "supabase key": "sb_secret_test",
                "postgres password": settings.database_url.partition("@")[0].rpartition(":")[2],
                "caldav password": PASSWORD,
                "basic header": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
            }
            opened = Scene(fleet, tenant, log, secrets | {word: word for word in WORDS})
            opened.sync()
            yield opened
        finally:
            fleet.close()
            database.close()
