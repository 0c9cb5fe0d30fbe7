"""`make demo`: the main job on real servers, sabotaged, healed and proven; ends by itself.

Everything printed is read from Postgres, Supabase or the providers; the last line is one JSON object, and
the exit code is 0 only if the audit finds no drift and only the sabotaged tenants were affected.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from db.repositories import readings, tenants
from sandbox.asking import Asking
from sandbox.gardener import Gardener
from sandbox.population import LARGE_EVENTS, Planted, plant, plant_on_own_server
from sandbox.servers.radicale import Radicale
from sandbox.signals import Stopped, raise_on_signals
from sandbox.telling import Teller
from sandbox.world import World
from tenantsync.audit import service as auditing
from tenantsync.cli.audit import for_people
from tenantsync.mirror.supabase import Supabase

TENANTS = 40
EDITS_PER_SECOND = 250.0
QUIET_SECONDS = 12.0
STORM_SECONDS = 22.0
OVERRIDES = {
    "SYNC_INTERVAL": "3s",
    "SYNC_UNIT_DEADLINE": "6s",
    "SYNC_CONFIRM_EMPTY_AFTER": "5s",
    "WORKER_BATCH_SIZE": "50",
    # Polled twenty times as often as usual: the servers here are ours.
    "GOOGLE_QUOTA_PER_MINUTE": "1000000",
    "GOOGLE_USER_QUOTA_PER_MINUTE": "60000",
    "CALDAV_SERVER_QUOTA_PER_MINUTE": "100000",
    "CALDAV_SERVER_CONCURRENCY": "64",
}
TASKS = {"calendar.report": "completed", "demo.fail": "failed", "demo.choose": "completed"}
"""What is to come of the tasks that a member asks for."""
AUDIT_DEADLINE = 12.0  # seconds a calendar; a hanging server costs as much
AFFECTED = text("""
select distinct t.name from sync.tenants t
 where exists (select 1 from sync.accounts a where a.tenant_id = t.tenant_id and a.state <> 'connected')
    or exists (select 1 from sync.calendars c
                where c.tenant_id = t.tenant_id and (c.failures > 0 or c.state not in ('synced', 'removed')))
    or exists (select 1 from sync.quarantined_items q where q.tenant_id = t.tenant_id)
    or exists (select 1 from sync.units u where u.tenant_id = t.tenant_id
                and (u.failed_runs > :failed_before or u.state = 'parked'))
    or exists (select 1 from worker.tasks k where k.tenant_id = t.tenant_id and k.kind = 'sync.unit'
                and (k.error_log is not null))
 order by t.name
""")

RESET_COUNTERS = text("update sync.calendars set api_calls = 0, bytes_in = 0, saved_calls = 0, saved_bytes = 0")
NEEDS_REAUTH = text("""
select t.name from sync.accounts a join sync.tenants t using (tenant_id) where a.state = 'needs_reauth'
""")


@dataclass(slots=True)
class Sabotage:
    """Who was sabotaged, and how."""

    revoked: Planted
    hanging: Planted
    expired: Planted
    poisoned: Planted
    names: dict[str, str] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--tenants", type=int, default=TENANTS, help="tenants, besides the one whose server hangs")
    parser.add_argument("--large", type=int, default=LARGE_EVENTS, help="events of the very large calendar")
    arguments = parser.parse_args()
    raise_on_signals()
    tell = Teller()
    try:
        return Demo(tell, tenant_count=arguments.tenants, large=arguments.large).run()
    except Stopped as stopped:
        tell.say("interrupted; everything has been stopped", style="yellow")
        return stopped.code


class Demo:
    """The story, chapter by chapter."""

    def __init__(self, tell: Teller, *, tenant_count: int, large: int) -> None:
        self._tell = tell
        self._tenant_count = tenant_count
        self._large = large

    def run(self) -> int:
        self._tell.chapter("Starting Postgres, Valkey, Supabase, a CalDAV server and a Google stand-in")
        with World(overrides=OVERRIDES) as world, Radicale(folder=world.folder / "hanging", name="hanging") as fragile:
            self._world = world
            planted = plant(world, tenant_count=self._tenant_count, large=self._large)
            alone = plant_on_own_server(world, fragile, "yew")
            self._tell.say(f"{len(planted) + 1} tenants connected their accounts")
            self._start_celery()
            self._first_sync()
            with Gardener(world, planted, edits_per_second=EDITS_PER_SECOND) as gardener:
                self._quiet_days(gardener)
                tasks = self._ask_for_tasks(planted)
                sabotage = self._sabotage(planted, alone, fragile)
                self._bad_days(gardener, sabotage, fragile)
            result = self._judge(sabotage, gardener.edits) | {"tasks": tasks}
        result["ok"] = result["ok"] and tasks == TASKS
        result["seconds"] = round(self._tell.seconds, 1)
        sys.stdout.write(json.dumps(result) + "\n")
        return 0 if result["ok"] else 1

    def _start_celery(self) -> None:
        world = self._world
        world.start_all()
        self._tell.say("five Celery workers, two beats and Flower are up")
        self._tell.say(f"Flower: http://127.0.0.1:{world.flower_port} as operator / {world.flower_password}")

    def _first_sync(self) -> None:
        self._tell.chapter("First full sync")
        began = time.monotonic()

        def done() -> bool:
            counts = self._counts()
            return counts["unsynced"] == 0 and counts["outbox"] == 0

        def describe() -> str:
            counts = self._counts()
            return (
                f"{counts['events']} events stored, {counts['unsynced']} of {counts['calendars']} calendars to go, "
                f"{counts['outbox']} rows on the way to Supabase"
            )

        if not self._tell.wait(done, describe, timeout=90):
            self._tell.say(f"[red]the first sync did not finish: {describe()}[/red]")
        counts = self._counts()
        self._tell.say(
            f"{counts['events']} events of {counts['calendars']} calendars are in Postgres and in Supabase "
            f"after {time.monotonic() - began:.1f} s"
        )
        with self._world.database.transaction() as connection:
            connection.execute(RESET_COUNTERS)

    def _quiet_days(self, gardener: Gardener) -> None:
        self._tell.chapter("Ordinary days: people edit their calendars")
        ends = time.monotonic() + QUIET_SECONDS
        self._tell.wait(lambda: time.monotonic() >= ends, lambda: self._traffic(gardener), timeout=QUIET_SECONDS + 5)
        self._tell.say(self._traffic(gardener))

    def _ask_for_tasks(self, planted: list[Planted]) -> dict[str, Any]:
        self._tell.chapter("A web app asks for work, through supabase-py")
        return Asking(self._world, self._tell, planted[0]).run()

    def _sabotage(self, planted: list[Planted], alone: Planted, fragile: Radicale) -> Sabotage:
        self._tell.chapter("Bad days")
        google = [one for one in planted if one.google]
        done = Sabotage(revoked=google[2], hanging=alone, expired=google[3], poisoned=google[4])
        with self._world.google.control() as control:
            control.revoke_grant(done.revoked.google[0][0])
            control.expire_access_tokens(done.revoked.google[0][0])
            control.expire_sync_tokens(account=done.expired.google[0][0])
            email, calendars = done.poisoned.google[0]
            control.add_poison(email, calendars[0], "year_zero")
        fragile.freeze()
        done.names = {
            done.revoked.name: "its grant is revoked",
            done.hanging.name: "its CalDAV server hangs",
            done.expired.name: "its cursors have expired",
            done.poisoned.name: "an event that no calendar can hold",
        }
        for name, what in done.names.items():
            self._tell.say(f"{name}: {what}")
        victim = self._world.processes["sync"]
        victim.kill()
        self._tell.say("the sync worker is killed with SIGKILL, its batches in its hands")
        return done

    def _bad_days(self, gardener: Gardener, sabotage: Sabotage, fragile: Radicale) -> None:
        ends = time.monotonic() + STORM_SECONDS
        self._tell.wait(lambda: time.monotonic() >= ends, lambda: self._traffic(gardener), timeout=STORM_SECONDS + 5)
        self._tell.say(self._traffic(gardener))
        self._tell.say(f"workers restarted by the supervisor: {', '.join(self._world.revived) or 'none'}")

    def _judge(self, sabotage: Sabotage, edits: int) -> dict[str, Any]:
        world = self._world
        self._tell.chapter("The audit: provider against Postgres against Supabase")
        self._settle()
        with world.database.reading() as connection:
            affected = list(connection.execute(AFFECTED, {"failed_before": 0}).scalars())
            fleet = readings.fleet(connection)
            needs_reauth = set(connection.execute(NEEDS_REAUTH).scalars())
            kept = connection.execute(
                text("select count(*) from sync.events where tenant_id = :tenant"),
                {"tenant": sabotage.revoked.tenant_id},
            ).scalar_one()
        supabase = Supabase(world.supabase.url, world.supabase.secret_key)
        try:
            report = auditing.audit(
                world.database, supabase, world.settings, deadline=AUDIT_DEADLINE, progress=self._tell.say
            )
        finally:
            supabase.close()
        for line in for_people(report).splitlines():
            self._tell.say(line)
        strangers = sorted(set(affected) - set(sabotage.names))
        self._tell.say(
            f"affected: {', '.join(affected) or 'nobody'}; strangers among them: {', '.join(strangers) or 'none'}"
        )
        self._tell.say(f"{sabotage.revoked.name} is asked to reconnect and keeps its {kept} events")
        made, saved = int(fleet["api_calls"]), int(fleet["saved_calls"])
        calls_pct = round(100 * saved / (made + saved), 1) if made + saved else 0.0
        total_bytes = fleet["bytes_in"] + fleet["saved_bytes"]
        bytes_pct = round(100 * fleet["saved_bytes"] / total_bytes, 1) if total_bytes else 0.0
        self._tell.say(
            f"{made} requests instead of {made + saved} for full syncs ({calls_pct} % saved), "
            f"{fleet['bytes_in'] / 1e6:.1f} MB instead of {total_bytes / 1e6:.1f} MB ({bytes_pct} % saved)"
        )
        unproven = [f"{one.tenant}/{one.calendar.name}: {one.reason}" for one in report.having(auditing.UNPROVEN)]
        expected_unproven = {sabotage.revoked.name, sabotage.hanging.name}
        ok = (
            report.drift == 0
            and not strangers
            and not any(one.failure for one in report.tenants)
            and {one.tenant for one in report.having(auditing.UNPROVEN)} <= expected_unproven
            and sabotage.revoked.name in needs_reauth
            and kept > 0
        )
        return {
            "ok": ok,
            "tenants": int(fleet["tenants"]),
            "units": int(fleet["units"]),
            "events": int(fleet["events"]),
            "mirrored": report.mirrored,
            "drift": report.drift,
            "unproven": unproven,
            "affected_tenants": affected,
            "api_calls_saved_pct": calls_pct,
            "bytes_saved_pct": bytes_pct,
            "edits": edits,
            "seconds": 0.0,
        }

    def _settle(self) -> None:
        """One more round for everybody, so that the audit does not begin with lateness."""
        with self._world.database.transaction() as connection:
            since = tenants.moment(connection)

        def done() -> bool:
            with self._world.database.statement() as connection:
                late = connection.execute(
                    text(
                        "select count(*) from sync.calendars c join sync.accounts a using (tenant_id, account_id) "
                        "where c.state <> 'removed' and a.state = 'connected' and c.failures = 0 "
                        "and (c.last_success_at is null or c.last_success_at < :since)"
                    ),
                    {"since": since},
                ).scalar_one()
            return bool(late == 0)

        self._tell.wait(done, lambda: "waiting for one more round", timeout=20)

    def _counts(self) -> dict[str, int]:
        query = text("""
            select (select count(*) from sync.events) as events,
                   (select count(*) from sync.calendars) as calendars,
                   (select count(*) from sync.calendars where state = 'new') as unsynced,
                   (select count(*) from mirror.outbox) as outbox,
                   (select coalesce(sum(quiet_runs), 0) from sync.units) as quiet,
                   (select coalesce(sum(changed_runs), 0) from sync.units) as changed,
                   (select coalesce(sum(failed_runs), 0) from sync.units) as failed
        """)
        with self._world.database.statement() as connection:
            return {name: int(value) for name, value in connection.execute(query).mappings().one().items()}

    def _traffic(self, gardener: Gardener) -> str:
        counts = self._counts()
        return (
            f"{gardener.edits} edits at the providers; runs: {counts['quiet']} quiet, {counts['changed']} changed, "
            f"{counts['failed']} failed; {counts['outbox']} rows on the way to Supabase"
        )


if __name__ == "__main__":
    sys.exit(main())
