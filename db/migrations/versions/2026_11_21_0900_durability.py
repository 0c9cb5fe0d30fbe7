"""Occurrences of periodic jobs, budgets and holds, debts, pauses, incidents, and the double entry of units.

Safe on a live system: new tables, and columns with constant defaults. `accounted_to` begins now, so that
nothing that happened before this migration is expected of the ledger.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LANES = """
alter table sync.units drop constraint units_lane_check;
alter table sync.units add constraint units_lane_check
  check (lane in ('sync', 'bulk', 'quarantine', 'isolated'));
alter table sync.turns drop constraint turns_lane_check;
alter table sync.turns add constraint turns_lane_check
  check (lane in ('sync', 'bulk', 'quarantine', 'isolated'));
insert into sync.turns (tenant_id, lane, weight, paused)
select t.tenant_id, 'isolated', t.weight, t.paused from sync.tenants t;
"""

UNITS = """
-- `owed`: what the last run cost beyond a turn; the next claim charges it to the tenant's debt.
alter table sync.units add owed real not null default 0;
-- The one provider of the unit's calendars, null where they have several: lets a claim pass over a closed one.
alter table sync.units add provider text;
update sync.units u set provider = a.provider
  from (select workspace_id, tenant_id, min(provider) as provider from sync.accounts where state <> 'removed'
         group by workspace_id, tenant_id having count(distinct provider) = 1) a
 where a.workspace_id = u.unit_id and a.tenant_id = u.tenant_id;
alter table sync.units add parked_at timestamptz;
-- How often the unit was in a process that died with others in it, since its last success.
alter table sync.units add suspicions smallint not null default 0;
-- The double entry: through which moment the unit's expected occurrences are accounted for, as what, and
-- why the unit rests where it does. The auditor reckons what is expected without reading any of it.
alter table sync.units add accounted_to timestamptz not null default now();
alter table sync.units add rest text;
alter table sync.units add slots_done bigint not null default 0;
alter table sync.units add slots_failed bigint not null default 0;
alter table sync.units add slots_skipped bigint not null default 0;
alter table sync.units add slots_superseded bigint not null default 0;

-- What a tenant has had beyond its share, in the cost of quiet runs.
alter table sync.turns add debt real not null default 0;
alter table sync.turns add constraint turns_cap_check check (cap between 1 and 1000);
alter table sync.turns add constraint turns_weight_check check (weight > 0 and weight <= 100);
"""

TENANTS = """
alter table sync.tenants add isolated_until timestamptz;
alter table sync.tenants add isolated_reason text;

-- When nothing was expected of a tenant. One open pause at most.
create table sync.pauses (
  pause_id uuid primary key,
  tenant_id uuid not null references sync.tenants on delete cascade,
  paused_at timestamptz not null default now(),
  resumed_at timestamptz,
  paused_by text not null,
  reason text
);
create unique index pauses_open on sync.pauses (tenant_id) where resumed_at is null;
create index pauses_tenant on sync.pauses (tenant_id, paused_at);

-- Units that killed the worker that ran them alone: what moves a tenant into the isolated lane.
create table sync.incidents (
  incident_id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references sync.tenants on delete cascade,
  unit_id uuid not null,
  lane text not null,
  worker_id text,
  happened_at timestamptz not null default now()
);
create index incidents_recent on sync.incidents (happened_at);
create index incidents_tenant on sync.incidents (tenant_id, happened_at);

-- How often a unit is expected to run, and since when.
create table sync.policies (
  since timestamptz primary key,
  every interval not null constraint policies_every_check check (every > interval '0')
);

-- Expected occurrences of a unit in (a, b]: the multiples of the policy's interval since 1970 that lie in it.
create function sync.slots(a timestamptz, b timestamptz) returns bigint language sql stable as $$
  select coalesce(sum(floor(extract(epoch from least(b, p.until)) / p.seconds)::bigint
                    - floor(extract(epoch from greatest(a, p.since)) / p.seconds)::bigint), 0)::bigint
    from (select since, lead(since, 1, 'infinity') over (order by since) as until,
                 extract(epoch from every) as seconds from sync.policies) p
   where p.since < b and p.until > a
$$;

-- The same of a tenant: without what lies in its pauses.
create function sync.expected(tenant uuid, a timestamptz, b timestamptz) returns bigint language sql stable as $$
  select sync.slots(a, b) - coalesce((
    select sum(sync.slots(greatest(a, p.paused_at), least(b, p.resumed_at)))
      from (select paused_at, coalesce(resumed_at, 'infinity') as resumed_at
              from sync.pauses where tenant_id = tenant) p
     where p.paused_at < b and p.resumed_at > a), 0)::bigint
$$;
"""

LIMITS = """
-- A budget at a provider, as its theoretical arrival time (GCRA): requests reserved so far are paid until `tat`.
create table sync.budgets (
  scope text not null constraint budgets_scope_check check (scope in ('account', 'server', 'project')),
  scope_id text not null,
  tat timestamptz not null,
  primary key (scope, scope_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- How much of "so many at a time" each worker process holds, until when.
create table sync.holds (
  scope text not null constraint holds_scope_check check (scope in ('account', 'server', 'project')),
  scope_id text not null,
  holder text not null,
  held integer not null constraint holds_held_check check (held >= 0),
  until timestamptz not null,
  primary key (scope, scope_id, holder)
) with (fillfactor = 50);

-- A closed scope opens by one probe: whoever holds it until `probe_until`.
alter table sync.cooldowns add probe_until timestamptz;
alter table sync.cooldowns add closures integer not null default 1;
"""

LEDGER = """
alter table worker.tasks drop constraint tasks_status_check;
alter table worker.tasks add constraint tasks_status_check
  check (status in ('pending', 'processing', 'completed', 'failed', 'superseded', 'skipped'));
-- A periodic job's occurrence: when it was due, and how often it was begun.
alter table worker.tasks add due_at timestamptz;
alter table worker.tasks add attempts smallint not null default 0;
create index tasks_occurrences on worker.tasks (kind, due_at) where due_at is not null;

-- The timetable's entries as they are followed: what `since` promises, what earlier rules of the entry
-- promised until then (`earlier`, in occurrences), and what became of it.
create table worker.schedules (
  entry text primary key,
  kind text not null constraint schedules_kind_key unique,
  every interval not null constraint schedules_every_check check (every > interval '0'),
  policy text not null constraint schedules_policy_check check (policy in ('latest', 'all', 'skip')),
  since timestamptz not null default now(),
  last_tick timestamptz not null default now(),
  earlier bigint not null default 0,
  done bigint not null default 0,
  failed bigint not null default 0,
  skipped bigint not null default 0,
  superseded bigint not null default 0
);
"""

# Written by db.states.refusal_trigger and frozen here; tests/migrations tries every pair on a real row.
MOVES = """
drop trigger units_state_moves on sync.units;
create trigger units_state_moves before update of state on sync.units for each row
  when (old.state is distinct from new.state and (old.state::text, new.state::text) not in
    (('dispatched', 'idle'), ('dispatched', 'running'), ('idle', 'dispatched'), ('parked', 'dispatched'),
     ('parked', 'idle'), ('running', 'dispatched'), ('running', 'idle'), ('running', 'parked')))
  execute function worker.refuse_move('state');
"""

MOVES_BEFORE = MOVES.replace(" ('parked', 'dispatched'),", "")


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for part in (LANES, UNITS, TENANTS, LIMITS, LEDGER, MOVES):
        op.execute(part)


def downgrade() -> None:
    op.execute(MOVES_BEFORE)
    op.execute("""
      drop table worker.schedules;
      drop index worker.tasks_occurrences;
      delete from worker.tasks where status = 'skipped';
      alter table worker.tasks drop constraint tasks_status_check, drop due_at, drop attempts;
      alter table worker.tasks add constraint tasks_status_check
        check (status in ('pending', 'processing', 'completed', 'failed', 'superseded'));
      alter table sync.cooldowns drop probe_until, drop closures;
      drop table sync.holds;
      drop table sync.budgets;
      drop function sync.expected;
      drop function sync.slots;
      drop table sync.policies;
      drop table sync.incidents;
      drop table sync.pauses;
      alter table sync.tenants drop isolated_until, drop isolated_reason;
      alter table sync.turns drop constraint turns_cap_check, drop constraint turns_weight_check, drop debt;
      alter table sync.units drop owed, drop provider, drop parked_at, drop suspicions, drop accounted_to, drop rest,
        drop slots_done, drop slots_failed, drop slots_skipped, drop slots_superseded;
      delete from sync.turns where lane = 'isolated';
      alter table sync.turns drop constraint turns_lane_check;
      alter table sync.turns add constraint turns_lane_check check (lane in ('sync', 'bulk', 'quarantine'));
      update sync.units set lane = 'bulk' where lane = 'isolated';
      alter table sync.units drop constraint units_lane_check;
      alter table sync.units add constraint units_lane_check check (lane in ('sync', 'bulk', 'quarantine'));
    """)
