"""`tenantsync why`"""

from datetime import UTC
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy import Connection

from db.repositories import explaining, tenants
from db.repositories.explaining import UnitFacts
from tenantsync.accounting import service as accounting
from tenantsync.accounting.explain import Explanation
from tenantsync.cli.common import JsonFlag, Refusal, answering, opened, say

SHOWN = 20
"""Units of a tenant that are explained, those that are due first."""


def why(
    about: Annotated[str, typer.Argument(help="A tenant by name or id, or a unit by id or as tenant/workspace.")],
    json: JsonFlag = False,
) -> None:
    """Say why something is not running: what holds it, in order, and when it will run."""
    with answering(as_json=json), opened() as (settings, database):
        with database.reading() as connection:
            units, there_are = _units(connection, about)
        answers = [accounting.why(database, settings, unit_id=unit) for unit in units]
        found = [_data(facts, explanation) for facts, explanation in (one for one in answers if one is not None)]
        say({"about": about, "units": found, "there_are": there_are}, _for_people(found, there_are), as_json=json)


def _units(connection: Connection, about: str) -> tuple[list[UUID], int]:
    tenant = tenants.find_tenant(connection, about)
    if tenant is not None:
        units, there_are = explaining.units_of(connection, tenant_id=tenant[0], limit=SHOWN)
        if not units:
            raise Refusal(f"The tenant {tenant[1]} has no workspace, so there is nothing to run. Add one first.")
        return units, there_are
    unit = explaining.find_unit(connection, about)
    if unit is None:
        raise Refusal(
            f"There is no tenant and no unit {about!r}. `tenantsync tenant list` shows the tenants; a unit goes by its "
            "id or as tenant/workspace."
        )
    return [unit[0]], 1


def _data(facts: UnitFacts, explanation: Explanation) -> dict[str, Any]:
    runs_at = explanation.runs_at
    return {
        "unit": facts.unit_id,
        "tenant": facts.tenant,
        "workspace": facts.workspace,
        "state": facts.state,
        "lane": facts.lane,
        "runs_at": runs_at,
        "runs_in": None if runs_at is None else max(0.0, (runs_at - facts.now).total_seconds()),
        "lost": explanation.lost,
        "chain": [{"kind": link.kind, "text": link.text, "until": link.until} for link in explanation.links],
    }


def _for_people(found: list[dict[str, Any]], there_are: int) -> str:
    parts = []
    for one in found:
        parts.append(f"{one['tenant']}/{one['workspace']} ({one['unit']}), {one['state']} in the lane {one['lane']}")
        parts += [f"  {number}. {link['text']}" for number, link in enumerate(one["chain"], 1)]
        if one["runs_at"] is None:
            parts.append("  runs: nobody can say before somebody has acted")
        elif one["runs_in"] == 0:
            parts.append("  runs: now")
        else:
            parts.append(
                f"  runs: in about {one['runs_in']:.0f} s, at {one['runs_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            )
    if there_are > len(found):
        parts.append(f"… and {there_are - len(found)} more units of this tenant, due later; ask for one by its id")
    return "\n".join(parts)
