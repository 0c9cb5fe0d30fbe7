"""`tenantsync status`"""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from db.repositories import accounting, readings
from tenantsync.cli.common import JsonFlag, ago, answering, opened, say, table, the_tenant

SHOWN = 20
AILING = ("paused", "isolated_until", "failing", "broken_accounts")


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
                "ledger": _ledger(accounting.last_result(connection)),
            }
        say(seen, _for_people(seen), as_json=json)


def _ledger(last: tuple[dict[str, Any], float] | None) -> dict[str, Any] | None:
    """What the last audit of the ledger found, and how many seconds ago; None before the first."""
    if last is None:
        return None
    result, age = last
    shown = ("expected", "accounted", "in_flight", "missing", "doubled", "checked", "names")
    return {"age": age, **{name: result[name] for name in shown}}


def _ledger_line(ledger: dict[str, Any] | None) -> str:
    if ledger is None:
        return "ledger:   not audited yet"
    line = f"ledger:   {ledger['expected']} expected, {ledger['accounted']} accounted, {ledger['missing']} missing"
    doubled = f", {ledger['doubled']} doubled" if ledger["doubled"] else ""
    names = [
        f"\n          {one.get('unit') or one.get('entry')} at {one['tick']}: {one['why']}" for one in ledger["names"]
    ]
    return f"{line}{doubled} (checked {ago(ledger['age'])} ago){''.join(names)}"


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _who(tenant: dict[str, Any]) -> str:
    """A tenant's name, with what an operator or the fleet did to it."""
    name: str = tenant["name"]
    if tenant["paused"]:
        by = f" by {tenant['paused_by'].rpartition(':')[2]}" if tenant["paused_by"] else ""
        since = f" on {_utc(tenant['paused_at'])}" if tenant["paused_at"] else ""
        name += f" (paused{by}{since}: {tenant['pause_reason']})"
    if tenant["isolated_until"]:
        name += f" (isolated until {_utc(tenant['isolated_until'])}: {tenant['isolated_reason']})"
    return name


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
        _ledger_line(seen["ledger"]),
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
    ailing = [one for one in seen["tenants"] if any(one[name] for name in AILING)] or seen["tenants"][:SHOWN]
    parts.append(
        table(
            ("tenant", "calendars", "failing", "broken accounts", "events", "unsent", "stalest"),
            [
                (
                    _who(one),
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
        f"parked: {one['tenant']}/{one['workspace']}: {one['parked_reason']}{_canary(one)}"
        for one in seen["parked_units"][:SHOWN]
    ]
    return "\n".join(parts)


def _canary(parked: dict[str, Any]) -> str:
    again = parked["tried_again_at"]
    return f"; tried again at {_utc(again)}" if again else "; waits for `tenantsync parked retry`"
