"""Monthly partitions of the history tables: made ahead, dropped whole when everything in them has aged out.

A partition holds a range of UUIDv7 ids, whose first 48 bits are their moment in milliseconds (RFC 9562): the row's own
id, or that of its process, where a number has to be unique within the process over all months.
"""

import re
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, text

from db.ids import first_id_at

PARTITIONED = {
    "worker.tasks": "id",
    "worker.execution_logs": "id",
    "worker.system_metrics": "id",
    "worker.audit_logs": "id",
    "process.events": "process_id",
    "process.delivery_log": "id",
}
"""Tables by the column whose ranges their partitions hold."""
STILL_NEEDED = {
    # a process that is open, or closed not long ago, keeps its numbers
    "process.events": "select 1 from process.processes where process_id >= '{first}' and process_id < '{end}'",
    # a task that waits for a person may do so for longer than history is kept, and its end has to arrive at Supabase
    "worker.tasks": (
        "select 1 from {partition} where (supabase_task_id is not null or requested_by is not null)"
        " and status in ('pending', 'processing', 'waiting') union all"
        " select 1 from mirror.outbox where entity = 'tasks' and row_id >= '{first}' and row_id < '{end}' union all"
        " select 1 from mirror.parked_rows where entity = 'tasks' and row_id >= '{first}' and row_id < '{end}'"
    ),
}
"""What keeps a partition, however old it is."""
MONTHS_AHEAD = 3
LOCK_KEY = 7_246_002  # any number, the same everywhere but not that of the migrations
_NAME = re.compile(r"_(\d{4})_(\d{2})$")

_CHILDREN = text(
    "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
    "where i.inhparent = cast(:parent as regclass)"
)


def _month(moment: datetime, ahead: int = 0) -> datetime:
    index = moment.year * 12 + moment.month - 1 + ahead
    return datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)


def _children(connection: Connection, parent: str) -> list[str]:
    return sorted(connection.execute(_CHILDREN, {"parent": parent}).scalars())


def ensure_ahead(connection: Connection, *, now: datetime, months: int = MONTHS_AHEAD) -> list[str]:
    """Make the partitions of this month and of the next `months`; returns the names of new ones."""
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
    made = []
    for parent, column in PARTITIONED.items():
        schema, table = parent.split(".")
        there = set(_children(connection, parent))
        for ahead in range(months + 1):
            start, end = _month(now, ahead), _month(now, ahead + 1)
            name = f"{table}_{start:%Y_%m}"
            if name in there:
                continue
            _make(connection, parent, column, f"{schema}.{name}", first_id_at(start), first_id_at(end))
            made.append(f"{schema}.{name}")
    return made


def _make(connection: Connection, parent: str, column: str, name: str, first: UUID, end: UUID) -> None:
    """One partition, with the rows of its range that came before it and went to the default partition."""
    early = f"from {parent}_default where {column} >= '{first}' and {column} < '{end}'"
    connection.execute(text(f"create table {name} (like {parent} including defaults including constraints)"))
    if connection.execute(text(f"select exists (select 1 {early})")).scalar_one():
        connection.execute(text(f"with early as (delete {early} returning *) insert into {name} select * from early"))
    connection.execute(text(f"alter table {parent} attach partition {name} for values from ('{first}') to ('{end}')"))


def drop_before(connection: Connection, *, moment: datetime, at_most: int | None = None) -> list[str]:
    """Drop the partitions whose whole month ended before `moment`, and that nothing needs; returns their names.

    Each takes its whole table until the commit: on a live system one a transaction, for there is no order of several
    that all who write to several keep to.
    """
    dropped: list[str] = []
    for parent in PARTITIONED:
        schema = parent.split(".")[0]
        for name in _children(connection, parent):
            found = _NAME.search(name)
            if found is None or len(dropped) == at_most:
                continue
            start = datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)
            if _month(start, 1) <= moment and not _needed(connection, parent, f"{schema}.{name}", start):
                connection.execute(text(f"drop table {schema}.{name}"))
                dropped.append(f"{schema}.{name}")
    return dropped


def _needed(connection: Connection, parent: str, partition: str, start: datetime) -> bool:
    if parent not in STILL_NEEDED:
        return False
    first, end = first_id_at(start), first_id_at(_month(start, 1))
    query = STILL_NEEDED[parent].format(first=first, end=end, partition=partition)
    return bool(connection.execute(text(f"select exists ({query})")).scalar_one())


def strays(connection: Connection) -> int:
    """Rows in the default partitions: rows whose month had no partition when they came. Should be 0."""
    counts = ", ".join(f"(select count(*) from {parent}_default)" for parent in PARTITIONED)
    row = connection.execute(text(f"select {counts}")).one()
    return sum(int(count) for count in row)
