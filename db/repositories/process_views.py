"""Processes as people look through them: with everything that a list can be narrowed by."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection, text

from db.repositories.processes import COLUMNS, ProcessRow

FLEET_QUERIES = ("EVERYBODYS",)

_NARROWED = f"""
select {COLUMNS} from process.processes p
 where {{tenant}}
   and (cast(:states as text[]) is null or p.state = any(cast(:states as text[])))
   and (cast(:kinds as text[]) is null or p.kind = any(cast(:kinds as text[])))
   and (cast(:tags as text[]) is null or p.tags @> cast(:tags as text[]))
   and (cast(:parent as uuid) is null or p.parent_id = cast(:parent as uuid))
   and (cast(:workspaces as uuid[]) is null or p.workspace_id = any(cast(:workspaces as uuid[])))
   and (cast(:before as uuid) is null or p.process_id < cast(:before as uuid))
 order by p.process_id desc limit :n
"""
TENANTS = text(_NARROWED.format(tenant="p.tenant_id = :tenant"))
EVERYBODYS = text(_NARROWED.format(tenant="true"))


def narrowed(
    connection: Connection,
    *,
    tenant_id: UUID | None,
    workspace_ids: Collection[UUID] | None,
    states: Collection[str] | None,
    kinds: Collection[str] | None,
    tags: Collection[str] | None,
    parent_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[ProcessRow]:
    """Processes of a tenant (of everybody without one), the newest first. None: not narrowed by it."""
    parameters = {
        "tenant": tenant_id,
        "workspaces": None if workspace_ids is None else list(workspace_ids),
        "states": None if states is None else list(states),
        "kinds": None if kinds is None else list(kinds),
        "tags": None if tags is None else list(tags),
        "parent": parent_id,
        "before": before,
        "n": limit,
    }
    query = EVERYBODYS if tenant_id is None else TENANTS
    return [ProcessRow(**row) for row in connection.execute(query, parameters).mappings()]
