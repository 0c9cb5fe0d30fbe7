"""What cleanup deletes, in bounded portions."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

FLEET_QUERIES = ("BURY", "TASK_KEYS", "STAGED", "WORKERS", "LEDGER", "TURNS", "PROCESSES", "EVENTS", "ARCHIVE")

PORTION = 10_000  # rows a statement; the caller goes on until a portion is not full

# What says that something is gone stays for as long as it has not arrived at Supabase.
_ARRIVED = """
  not exists (select 1 from mirror.outbox o
               where o.tenant_id = d.tenant_id and o.entity = '{entity}' and o.row_id = d.{id})
  and not exists (select 1 from mirror.parked_rows p
                   where p.tenant_id = d.tenant_id and p.entity = '{entity}' and p.row_id = d.{id})
"""
_BURY = """
delete from sync.{table} where {id} in (
  select d.{id} from sync.{table} d
   where d.deleted_at < :before and {unneeded} and {arrived} order by d.deleted_at limit :n)
"""
_UNNEEDED = {
    ("tombstones", "events", "event_id"): "true",
    ("calendars", "calendars", "calendar_id"): (
        "not exists (select 1 from sync.tombstones t where t.calendar_id = d.calendar_id)"
        " and not exists (select 1 from sync.events e where e.calendar_id = d.calendar_id)"
    ),
    ("accounts", "accounts", "account_id"): (
        "not exists (select 1 from sync.calendars c where c.account_id = d.account_id)"
    ),
}
BURY = {
    table: text(_BURY.format(table=table, id=id_, unneeded=unneeded, arrived=_ARRIVED.format(entity=entity, id=id_)))
    for (table, entity, id_), unneeded in _UNNEEDED.items()
}

# An occurrence's key (entry@tick) guards for as long as its entry may come back to it: an entry that comes seldom, or
# was not followed for months, keeps the keys near its last tick, however old they are. A task of Supabase's is known by
# its key for as long as something may still be wanted of it.
TASK_KEYS = text("""
delete from worker.task_keys where key in (
  select k.key from worker.task_keys k
   where k.created_at < now() - :age
     and not exists (select 1 from worker.schedules s
                      where s.entry = split_part(k.key, '@', 1) and k.created_at >= s.last_tick - :age)
     and not exists (select 1 from process.processes p where p.process_id = k.task_id and p.completed_at is null)
   order by k.created_at limit :n)
""")

STAGED = text("""
delete from sync.staged_events s where s.ctid = any(array(
  select d.ctid from sync.staged_events d
    join sync.calendars c on c.calendar_id = d.calendar_id
    join sync.units u on u.unit_id = c.workspace_id and u.tenant_id = c.tenant_id
   where d.fence < u.fence or u.state <> 'running' limit :n))
""")

WORKERS = text("delete from worker.workers where heartbeat_at < now() - interval '10 minutes'")

# A task with a process is the process' to end. One that was asked for and has none ends in a state that is told.
LEDGER = text("""
update worker.tasks
   set status = case when supabase_task_id is null and requested_by is null then 'superseded' else 'failed' end,
       completed_at = now(), updated_at = now(), error_log = 'its worker stopped'
 where id in (select t.id from worker.tasks t
               where t.status in ('pending', 'processing') and t.due_at is null
                 and coalesce(t.lease_until, t.updated_at + interval '1 hour') < now() - interval '1 minute'
                 and not exists (select 1 from process.processes p where p.process_id = t.id)
               limit :n for no key update of t skip locked)
""")

TURNS = text("""
with late as materialized (
  select t.tenant_id, t.lane, u.due from sync.turns t
   cross join lateral (select min(next_due_at) as due from sync.units u
                        where u.tenant_id = t.tenant_id and u.lane = t.lane) u
   where u.due is not null and t.ready_at > greatest(u.due, now() + interval '1 minute')
   order by t.tenant_id, t.lane for no key update of t skip locked)
update sync.turns t set ready_at = now() from late l where t.tenant_id = l.tenant_id and t.lane = l.lane
""")


# Of what has not arrived at Supabase nothing goes: its events come in the order of their numbers or not at all.
PROCESSES = text(f"""
delete from process.processes where process_id in (
  select d.process_id from process.processes d
   where d.completed_at < :before and {_ARRIVED.format(entity="processes", id="process_id")}
     and {_ARRIVED.format(entity="process_events", id="process_id")}
   order by d.completed_at limit :n for update of d skip locked)
""")

EVENTS = text(f"""
delete from process.events where (process_id, sequence) in (
  select d.process_id, d.sequence from process.events d
   where d.created_at < :before and {_ARRIVED.format(entity="process_events", id="process_id")}
   order by d.created_at limit :n)
""")

ARCHIVE = text("""
update process.events set archived = true where (process_id, sequence) in (
  select process_id, sequence from process.events
   where created_at < :before and not archived and category in ('system', 'debug') order by created_at limit :n)
""")


def forget_processes(connection: Connection, *, before: datetime) -> int:
    """Forget processes that ended before a moment, with their questions."""
    return connection.execute(PROCESSES, {"before": before, "n": PORTION}).rowcount


def forget_process_events(connection: Connection, *, before: datetime) -> int:
    return connection.execute(EVENTS, {"before": before, "n": PORTION}).rowcount


def archive_process_events(connection: Connection, *, before: datetime) -> int:
    """Mark events that tell nothing any more; Supabase lets them go."""
    return connection.execute(ARCHIVE, {"before": before, "n": PORTION}).rowcount


def bury(connection: Connection, *, table: str, before: datetime) -> int:
    """Forget what was deleted before a moment: `tombstones`, then `calendars`, then `accounts`."""
    return connection.execute(BURY[table], {"before": before, "n": PORTION}).rowcount


def forget_task_keys(connection: Connection, *, age: timedelta) -> int:
    return connection.execute(TASK_KEYS, {"age": age, "n": PORTION}).rowcount


def clear_staged(connection: Connection) -> int:
    """Drop staged rows of runs that no longer exist."""
    return connection.execute(STAGED, {"n": PORTION}).rowcount


def forget_workers(connection: Connection) -> int:
    return connection.execute(WORKERS).rowcount


def supersede_orphans(connection: Connection) -> int:
    """Close the ledger rows of work whose worker is gone; the tick sees to the timetable's occurrences."""
    return connection.execute(LEDGER, {"n": PORTION}).rowcount


def repair_turns(connection: Connection) -> int:
    """Wake tenants whose turn lies behind their work. Should find none; what it finds is published."""
    return connection.execute(TURNS).rowcount
