"""A database that looks like an installation at work, filled by statements alone: for screenshots and benchmarks.

Nothing here runs. Tenants, calendars, readings, runs and processes are written as the product would have left them,
the latter by the product's own functions.
"""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from db import partitions
from db.ids import first_id_at, new_id
from db.session import Database
from sandbox import showroom_sql as sql
from sandbox.population import TREES
from tenantsync.processes import publishing, service
from tenantsync.processes.publishing import Event
from tenantsync.processes.values import Held, NewQuestion

INTERVAL = 60  # seconds, between polls
LEASE = timedelta(hours=1)
SUFFIXES = (
    "Labs",
    "Studio",
    "Clinic",
    "Logistics",
    "Partners",
    "Foods",
    "Robotics",
    "Travel",
    "Schule",
    "工房",
    "商店",
    "デザイン",
)


def names(count: int) -> list[str]:
    """So many different names of customers."""
    rng = random.Random(7)
    pairs = [f"{tree.title()} {suffix}" for tree in TREES for suffix in SUFFIXES]
    rng.shuffle(pairs)
    return [pairs[n % len(pairs)] + (f" {n // len(pairs) + 1}" if n >= len(pairs) else "") for n in range(count)]


def fill(database: Database, *, tenants: int, days: int, runs: int = 600) -> None:
    """Fill an empty, migrated database."""
    now = datetime.now(UTC)
    with database.transaction() as connection:
        for month in range(3):
            partitions.ensure_ahead(connection, now=now - timedelta(days=30 * (2 - month)), months=0)
        partitions.ensure_ahead(connection, now=now)
        ids = [str(UUID(int=first_id_at(now - timedelta(days=days)).int + (n << 8) + 1)) for n in range(tenants)]
        connection.execute(sql.TENANTS, {"ids": ids, "names": names(tenants)})
        for statement in (
            sql.TURNS,
            sql.MIRROR_TURNS,
            sql.WORKSPACES,
            sql.UNITS,
            sql.ACCOUNTS,
            sql.CALENDARS,
            *sql.TROUBLE,
        ):
            connection.execute(statement)
    with database.transaction() as connection:
        for statement in (sql.WORKERS, sql.POLICY, sql.SCHEDULES):
            connection.execute(statement)
        counted = connection.execute(sql.COUNTS).one()
        sizes = {"units": counted.units, "calendars": counted.calendars, "events": int(counted.events)}
        readings = days * 24 * 3600 // 15
        connection.execute(sql.READINGS, {**sizes, "tenants": tenants, "count": readings})
        connection.execute(sql.WORKER_READINGS, {"count": readings})
        connection.execute(sql.RUNS, {"count": runs, "units": counted.units})
        proof = {"id": first_id_at(now - timedelta(hours=3)), "calendars": counted.calendars, "rows": sizes["events"]}
        connection.execute(sql.PROOF, proof)
    with database.statement() as connection:
        connection.execute(sql.ANALYSE)


def keep_alive(database: Database) -> None:
    """What somebody at work would have done within the last seconds: for pages that are looked at later."""
    with database.transaction() as connection:
        for statement in sql.ALIVE:
            connection.execute(statement, {"id": new_id()})


def show_processes(database: Database, *, tenant_id: UUID, workspace_id: UUID) -> dict[str, UUID]:
    """A tenant's processes in several states, by a name for each."""
    made: dict[str, UUID] = {}
    about = {"tenant_id": tenant_id, "workspace_id": workspace_id}
    with database.transaction() as connection:
        made["done"] = _create(connection, about, "calendar.report", "Weekly report", total_steps=3)
        held = _begin(connection, made["done"])
        for step, result in (("collect", {"events": 214}), ("summarise", None), ("render", {"kilobytes": 18})):
            service.start_step(connection, held=held, step=step)
            service.finish_step(connection, held=held, step=step, result=result)
        service.complete(
            connection,
            held=held,
            result={"week": 47, "events": 214, "busiest": "Wednesday", "text": "214 appointments, 31 of them new."},
        )
    with database.transaction() as connection:
        made["failed"] = _create(connection, about, "orders.export", "Export of October's orders", total_steps=2)
        held = _begin(connection, made["failed"])
        service.start_step(connection, held=held, step="upload")
        service.fail(connection, held=held, error="the bucket exports-2026 does not exist")
    with database.transaction() as connection:
        made["asking"] = _create(
            connection, about, "article.write", "Article: moving a clinic's calendars", total_steps=5
        )
        held = _begin(connection, made["asking"])
        for step in ("keywords", "personas"):
            service.start_step(connection, held=held, step=step, message="From the last 90 days of appointments")
            service.finish_step(connection, held=held, step=step, result=None)
        service.start_step(connection, held=held, step="theme", message="Three themes to choose from")
        service.ask(
            connection,
            held=held,
            question=NewQuestion(
                name="theme",
                input_type="select_theme",
                prompt="Which theme should the article have?",
                options=[
                    {
                        "title": "Nobody misses an appointment",
                        "description": "What changes for the front desk in the first week",
                    },
                    {
                        "title": "One calendar, four clinics",
                        "description": "How rooms and people are shared without double bookings",
                    },
                    {"title": "診療予約の引っ越し", "description": "予約を止めずに移行する手順"},
                ],
                actions=["regenerate"],
                deadline=timedelta(hours=23),
            ),
        )
    with database.transaction() as connection:
        made["running"] = _create(connection, about, "calendar.first_sync", "First sync: Rooms", total_steps=4)
        held = _begin(connection, made["running"])
        service.start_step(connection, held=held, step="listing", message="Asking the provider for everything")
        service.finish_step(connection, held=held, step="listing", result=None)
        service.start_step(connection, held=held, step="merging", message="12,400 events so far")
        publishing.publish_in(
            connection,
            process_id=made["running"],
            tenant_id=tenant_id,
            events=[Event("progress", {"percentage": 62.0, "message": "12,400 of 20,000 events"}, immediate=True)],
        )
    with database.transaction() as connection:
        for statement in sql.AS_LONG_AGO:
            connection.execute(statement)
    return made


def _create(connection: Connection, about: dict[str, UUID], kind: str, title: str, *, total_steps: int) -> UUID:
    return service.create(
        connection,
        tenant_id=about["tenant_id"],
        workspace_id=about["workspace_id"],
        kind=kind,
        title=title,
        started_by="user:web-app",
        total_steps=total_steps,
        queue="tasks",
    )


def _begin(connection: Connection, process_id: UUID) -> Held:
    held = service.begin(connection, process_id=process_id, worker="tasks@worker-2", lease=LEASE)
    assert held is not None  # noqa: S101
    return held
