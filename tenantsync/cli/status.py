"""`tenantsync status`"""

from typing import Annotated, Any

import typer

from db.repositories import readings
from tenantsync.cli.common import JsonFlag, ago, answering, opened, say, table, the_tenant

SHOWN = 20


def status(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None, json: JsonFlag = False
) -> None:
    """What is due, running, waiting, failing and closed; which workers live."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            tenant_id = the_tenant(connection, tenant)[0] if tenant is not None else None
            seen: dict[str, Any] = {
                "fleet": readings.fleet(connection),
                "workers": readings.workers(connection),
                "tenants": readings.tenants(connection, tenant_id=tenant_id, limit=10_000),
                "cooldowns": readings.cooldowns(connection, limit=1000),
                "parked_units": readings.parked_units(connection, limit=1000),
            }
        say(seen, _for_people(seen), as_json=json)


def _for_people(seen: dict[str, Any]) -> str:
    fleet = seen["fleet"]
    total = fleet["api_calls"] + fleet["saved_calls"]
    saved = f"{100 * fleet['saved_calls'] / total:.1f} %" if total else "nothing yet"
    parts = [
        f"{fleet['tenants']} tenants, {fleet['units']} units, {fleet['events']} events",
        (
            f"units:    {fleet['due']} due (oldest {ago(fleet['oldest_due'])}), {fleet['in_flight']} in flight, "
            f"{fleet['parked_units']} parked"
        ),
        (
            f"mirror:   {fleet['outbox']} rows unsent (oldest {ago(fleet['oldest_unsent'])}), "
            f"{fleet['parked_rows']} refused by Supabase"
        ),
        (
            f"trouble:  {fleet['failing_calendars']} calendars failing, {fleet['needs_reauth']} accounts to reconnect, "
            f"{fleet['set_aside']} items set aside"
        ),
        f"requests: {fleet['api_calls']} so far; {saved} saved against full syncs",
        "",
        table(
            ("worker", "queues", "slots", "active", "cpu %", "memory %", "last heard"),
            [
                (
                    one["worker_id"],
                    " ".join(one["queues"]),
                    one["slots"],
                    one["active_tasks"],
                    one["cpu_usage"],
                    one["memory_usage"],
                    f"{one['silent_for']:.0f} s ago",
                )
                for one in seen["workers"]
            ],
        )
        if seen["workers"]
        else "No worker has been heard of.\n",
    ]
    ailing = [one for one in seen["tenants"] if one["paused"] or one["failing"] or one["broken_accounts"]] or seen[
        "tenants"
    ][:SHOWN]
    parts.append(
        table(
            ("tenant", "calendars", "failing", "broken accounts", "events", "unsent", "stalest"),
            [
                (
                    one["name"] + (f" (paused: {one['pause_reason']})" if one["paused"] else ""),
                    one["calendars"],
                    one["failing"],
                    one["broken_accounts"],
                    one["events"],
                    one["unsent"],
                    ago(one["stalest"]) if one["calendars"] else "",
                )
                for one in ailing[:SHOWN]
            ],
        )
    )
    if len(ailing) > SHOWN:
        parts.append(f"… and {len(ailing) - SHOWN} more; --json has all")
    parts += [
        f"closed: {one['scope']} {one['scope_id']} for another {ago(one['seconds'])} ({one['reason']})"
        for one in seen["cooldowns"][:SHOWN]
    ]
    parts += [
        f"parked: {one['tenant']}/{one['workspace']}: {one['parked_reason']}" for one in seen["parked_units"][:SHOWN]
    ]
    return "\n".join(parts)
