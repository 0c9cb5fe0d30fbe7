"""`tenantsync audit`"""

import sys
from typing import Annotated, Any

import typer

from tenantsync.audit import service
from tenantsync.audit.service import Report
from tenantsync.cli.common import JsonFlag, answering, opened, remember, say, table, the_tenant
from tenantsync.mirror.supabase import Supabase

SHOWN = 50


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds for listing one calendar.")] = 120.0,
    json: JsonFlag = False,
) -> None:
    """Compare provider, Postgres and Supabase. Each calendar is proven, explained or not provable since a moment.

    Exit code 0 if no drift remains after a further sync, 1 otherwise.
    """
    with answering(as_json=json), opened() as (settings, database):
        with database.reading() as connection:
            tenant_id = the_tenant(connection, tenant)[0] if tenant is not None else None
        supabase = Supabase(settings.supabase_url, settings.supabase_secret_key.get_secret_value())
        try:
            report = service.audit(
                database,
                supabase,
                settings,
                tenant_id=tenant_id,
                deadline=deadline,
                progress=_progress,
            )
        finally:
            supabase.close()
        with database.transaction() as connection:
            remember(connection, tenant_id, "audit.proof", **_proof(report))
        say(as_data(report), for_people(report), as_json=json)
        if report.drift or any(one.failure for one in report.tenants):
            raise typer.Exit(1)


def _proof(report: Report) -> dict[str, int]:
    """What the overview shows of the last audit."""
    return {
        "calendars": len(report.calendars),
        "proven": len(report.having(service.PROVEN)),
        "explained": len(report.having(service.EXPLAINED)),
        "unproven": len(report.having(service.UNPROVEN)),
        "rows": report.mirrored,
        "drift": report.drift,
    }


def _progress(text: str) -> None:
    sys.stderr.write(text + "\n")


def as_data(report: Report) -> dict[str, Any]:
    """The report as JSON shows it."""
    return {
        "ok": not report.drift and not any(one.failure for one in report.tenants),
        "calendars": len(report.calendars),
        "proven": len(report.having(service.PROVEN)),
        "explained": [_calendar(one) for one in report.having(service.EXPLAINED)],
        "unproven": [_calendar(one) for one in report.having(service.UNPROVEN)],
        "drifting": [
            _calendar(one) | {"resources": sorted(one.differences.by_resource)[:SHOWN]}
            for one in report.having(service.DRIFTING)
        ],
        "mirror": {
            "rows": report.mirrored,
            "parked": sum(one.parked for one in report.tenants),
            "differing": [
                {
                    "tenant": one.tenant,
                    "missing": one.differences.missing[:SHOWN],
                    "surplus": one.differences.surplus[:SHOWN],
                    "differing": dict(list(one.differences.differing.items())[:SHOWN]),
                }
                for one in report.tenants
                if one.differences
            ],
            "unproven": [{"tenant": one.tenant, "reason": one.failure} for one in report.tenants if one.failure],
        },
        "drift": report.drift,
        "seconds": round(report.seconds, 1),
    }


def _calendar(proof: service.CalendarProof) -> dict[str, Any]:
    return {
        "tenant": proof.tenant,
        "calendar": proof.calendar.name,
        "calendar_id": str(proof.calendar.calendar_id),
        "provider": proof.calendar.provider,
        "reason": proof.reason,
        "since": None if proof.since is None else proof.since.isoformat(),
    }


def for_people(report: Report) -> str:
    """The report as a person reads it."""
    lines = [
        (
            f"{len(report.calendars)} calendars: {len(report.having(service.PROVEN))} proven, "
            f"{len(report.having(service.EXPLAINED))} explained, {len(report.having(service.UNPROVEN))} not provable, "
            f"{len(report.having(service.DRIFTING))} drifting"
        ),
        f"{report.mirrored} rows compared with Supabase, {sum(one.parked for one in report.tenants)} refused there",
    ]
    rest = [one for one in report.calendars if one.verdict != service.PROVEN]
    if rest:
        rows = [(one.tenant, one.calendar.name, one.verdict, one.reason, _moment(one)) for one in rest[:SHOWN]]
        lines.append(table(("tenant", "calendar", "verdict", "reason", "in step at"), rows))
    for proof in report.tenants:
        if proof.differences:
            lines.append(f"{proof.tenant}: {proof.differences.count} rows differ at Supabase")
        if proof.failure:
            lines.append(f"{proof.tenant}: Supabase could not be compared ({proof.failure})")
    lines.append(f"drift: {report.drift}")
    return "\n".join(lines)


def _moment(proof: service.CalendarProof) -> str:
    return "never" if proof.since is None else proof.since.strftime("%Y-%m-%d %H:%M:%S %Z")
