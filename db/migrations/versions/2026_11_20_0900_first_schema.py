"""The first schema: tenants and their calendars, the ledger, the mirror's outbox.

Safe on a live system: it only creates. Foreign keys are left out where a row is one of hundreds of
thousands (events, staged rows, outbox): those tables are written only by statements that take the
tenant from the calendar's own row, and the audit checks the outcome.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMAS = """
create schema sync;
create schema worker;
create schema mirror;

-- cache 1: with more, every backend hands out a block of its own and the numbers no longer only grow
create sequence sync.fence as bigint cache 1;
create sequence mirror.version as bigint cache 1;

create function worker.refuse_move() returns trigger language plpgsql as $$
begin
  raise exception '% may not move from % to %', tg_argv[0],
    to_jsonb(old) ->> tg_argv[0], to_jsonb(new) ->> tg_argv[0]
    using errcode = 'integrity_constraint_violation', constraint = tg_name, table = tg_table_name;
end $$;
"""

TENANTS = """
create table sync.tenants (
  tenant_id uuid primary key,
  name text not null constraint tenants_name_key unique,
  paused boolean not null default false,
  pause_reason text,
  weight real not null default 1 constraint tenants_weight_check check (weight > 0 and weight <= 100),
  created_at timestamptz not null default now()
);

create table sync.workspaces (
  workspace_id uuid primary key,
  tenant_id uuid not null references sync.tenants on delete cascade,
  name text not null,
  created_at timestamptz not null default now(),
  constraint workspaces_tenant_id_name_key unique (tenant_id, name),
  constraint workspaces_tenant_id_workspace_id_key unique (tenant_id, workspace_id)
);
"""

UNITS = """
-- A unit bears the id of its workspace. lease_until and fence stand in no index: a claim stays HOT.
create table sync.units (
  unit_id uuid primary key,
  tenant_id uuid not null,
  lane text not null default 'bulk' constraint units_lane_check check (lane in ('sync', 'bulk', 'quarantine')),
  state text not null default 'idle'
    constraint units_state_check check (state in ('idle', 'dispatched', 'running', 'parked')),
  next_due_at timestamptz not null default 'infinity',
  lease_until timestamptz,
  fence bigint not null default 0,
  crashes smallint not null default 0,
  wanted boolean not null default false,
  worker_id text,
  parked_reason text,
  quiet_runs bigint not null default 0,
  changed_runs bigint not null default 0,
  failed_runs bigint not null default 0,
  created_at timestamptz not null default now(),
  constraint units_tenant_id_unit_id_fkey foreign key (tenant_id, unit_id)
    references sync.workspaces (tenant_id, workspace_id) on delete cascade
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index units_due on sync.units (tenant_id, lane, next_due_at);

-- The ring: ready_at is a lower bound of "this tenant may have work in this lane".
create table sync.turns (
  tenant_id uuid not null references sync.tenants on delete cascade,
  lane text not null constraint turns_lane_check check (lane in ('sync', 'bulk', 'quarantine')),
  weight real not null default 1,
  cap integer not null default 50,
  paused boolean not null default false,
  at_cap boolean not null default false,
  ready_at timestamptz not null default 'infinity',
  primary key (tenant_id, lane)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index turns_ready on sync.turns (lane, ready_at) where not paused;
"""

ACCOUNTS = """
create table sync.accounts (
  account_id uuid primary key,
  tenant_id uuid not null,
  workspace_id uuid not null,
  provider text not null constraint accounts_provider_check check (provider in ('google', 'caldav')),
  identity text not null,
  endpoint text,
  state text not null default 'connected'
    constraint accounts_state_check check (state in ('connected', 'needs_reauth', 'unusable', 'removed')),
  state_reason text,
  state_since timestamptz not null default now(),
  credentials bytea,
  access_token bytea,
  access_expires_at timestamptz,
  version bigint not null default 0,
  created_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint accounts_tenant_id_account_id_key unique (tenant_id, account_id),
  constraint accounts_tenant_id_workspace_id_fkey foreign key (tenant_id, workspace_id)
    references sync.workspaces (tenant_id, workspace_id) on delete cascade
);
create unique index accounts_identity on sync.accounts (workspace_id, provider, identity)
  where state <> 'removed';
create index accounts_deleted on sync.accounts (deleted_at) where deleted_at is not null;

create table sync.calendars (
  calendar_id uuid primary key,
  tenant_id uuid not null,
  workspace_id uuid not null,
  account_id uuid not null,
  provider_key text not null,
  name text not null default '',
  time_zone text,
  access_role text,
  state text not null default 'new' constraint calendars_state_check
    check (state in ('new', 'synced', 'resync', 'confirming', 'lost', 'removed')),
  state_reason text,
  state_since timestamptz not null default now(),
  cursor text,
  query_version integer,
  next_due_at timestamptz not null default now(),
  failures integer not null default 0,
  last_error text,
  last_attempt_at timestamptz,
  last_success_at timestamptz,
  listed_at timestamptz,
  event_count integer not null default 0,
  runs bigint not null default 0,
  api_calls bigint not null default 0,
  bytes_in bigint not null default 0,
  full_calls integer not null default 0,
  full_bytes bigint not null default 0,
  saved_calls bigint not null default 0,
  saved_bytes bigint not null default 0,
  version bigint not null default 0,
  created_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint calendars_tenant_id_calendar_id_key unique (tenant_id, calendar_id),
  constraint calendars_account_id_provider_key_key unique (account_id, provider_key),
  constraint calendars_tenant_id_account_id_fkey foreign key (tenant_id, account_id)
    references sync.accounts (tenant_id, account_id) on delete cascade,
  constraint calendars_tenant_id_workspace_id_fkey foreign key (tenant_id, workspace_id)
    references sync.workspaces (tenant_id, workspace_id) on delete cascade
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index calendars_unit on sync.calendars (workspace_id);
create index calendars_deleted on sync.calendars (deleted_at) where deleted_at is not null;
"""

_EVENT_COLUMNS = """
  provider_key text{required},
  resource text not null,
  etag text,
  uid text,
  series_key text,
  status text{required},
  title text,
  description text,
  location text,
  starts_at timestamptz,
  ends_at timestamptz,
  all_day boolean{required},
  time_zone text,
  recurrence jsonb,
  original_start timestamptz,
  original_all_day boolean,
  organizer text,
  attendees jsonb,
  link text,
  transparency text,
  visibility text,
  provider_updated_at timestamptz,
  raw jsonb{required},
  digest text{required}
"""

EVENTS = f"""
create table sync.events (
  event_id uuid primary key,
  tenant_id uuid not null,
  calendar_id uuid not null,
  {_EVENT_COLUMNS.format(required=" not null")},
  version bigint not null,
  created_at timestamptz not null default now(),
  constraint events_calendar_id_provider_key_key unique (calendar_id, provider_key)
) with (fillfactor = 90);
create index events_series on sync.events (calendar_id, series_key) where series_key is not null;
create index events_resource on sync.events (calendar_id, resource) where resource <> provider_key;

create table sync.tombstones (
  event_id uuid primary key,
  tenant_id uuid not null,
  calendar_id uuid not null,
  provider_key text not null,
  version bigint not null,
  deleted_at timestamptz not null default now(),
  constraint tombstones_calendar_id_provider_key_key unique (calendar_id, provider_key)
);
create index tombstones_age on sync.tombstones (deleted_at);

-- Pages of a listing until they are merged. Unlogged: a listing that a crash interrupts starts over,
-- and the merge counts what it finds, so that an emptied table is an error and not an empty calendar.
create unlogged table sync.staged_events (
  calendar_id uuid not null,
  fence bigint not null,
  seq integer not null,
  kind text not null,
  event_id uuid,
  {_EVENT_COLUMNS.format(required="")}
);
create index staged_events_run on sync.staged_events (calendar_id, fence);

create table sync.quarantined_items (
  calendar_id uuid not null,
  resource text not null,
  tenant_id uuid not null,
  reason text not null,
  etag text,
  excerpt text,
  first_seen_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now(),
  primary key (calendar_id, resource)
);

create table sync.cooldowns (
  scope text not null constraint cooldowns_scope_check check (scope in ('account', 'tenant', 'project', 'provider')),
  scope_id text not null,
  until timestamptz not null,
  reason text not null,
  created_at timestamptz not null default now(),
  primary key (scope, scope_id)
);
"""

LEDGER = """
-- History is partitioned by ranges of the UUIDv7 id, which begins with its moment: months can be
-- dropped whole, and the id alone stays the primary key.
create table worker.tasks (
  id uuid not null,
  supabase_task_id uuid,
  tenant_id uuid,
  kind text not null,
  subject_id uuid,
  fence bigint,
  queue text,
  worker_id varchar(255) not null default 'unassigned',
  status varchar(50) not null default 'pending' constraint tasks_status_check
    check (status in ('pending', 'processing', 'completed', 'failed', 'superseded')),
  lease_until timestamptz,
  started_at timestamptz,
  completed_at timestamptz,
  result jsonb,
  error_log text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create index tasks_open on worker.tasks (queue, status) where status in ('pending', 'processing');
create index tasks_status on worker.tasks (status);
create index tasks_worker on worker.tasks (worker_id);
create index tasks_tenant on worker.tasks (tenant_id, id);
create table worker.tasks_default partition of worker.tasks default;

-- What may exist once, over all months: a periodic job's occurrence, a task taken in from Supabase.
create table worker.task_keys (
  key text primary key,
  task_id uuid not null,
  created_at timestamptz not null default now()
);

create table worker.execution_logs (
  id uuid not null,
  task_id uuid not null,
  tenant_id uuid,
  step_name varchar(255) not null,
  execution_time integer,
  success boolean,
  details jsonb,
  logged_at timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create index execution_logs_task on worker.execution_logs (task_id);
create table worker.execution_logs_default partition of worker.execution_logs default;

create table worker.system_metrics (
  id uuid not null,
  scope text not null default 'worker' constraint system_metrics_scope_check
    check (scope in ('worker', 'fleet', 'tenant')),
  worker_id varchar(255) not null,
  tenant_id uuid,
  cpu_usage numeric(5, 2),
  memory_usage numeric(5, 2),
  active_tasks integer,
  details jsonb,
  recorded_at timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create index system_metrics_worker on worker.system_metrics (worker_id, id);
create table worker.system_metrics_default partition of worker.system_metrics default;

create table worker.audit_logs (
  id uuid not null,
  tenant_id uuid,
  actor text not null,
  action text not null,
  details jsonb,
  created_at timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create index audit_logs_tenant on worker.audit_logs (tenant_id, id);
create table worker.audit_logs_default partition of worker.audit_logs default;

create table worker.workers (
  worker_id text primary key,
  queues text[] not null,
  slots integer not null,
  cpu_usage numeric(5, 2),
  memory_usage numeric(5, 2),
  active_tasks integer not null default 0,
  clock_skew_ms integer,
  started_at timestamptz not null default now(),
  heartbeat_at timestamptz not null default now()
);
"""

MIRROR = """
-- Which rows still have to reach Supabase, at least at which version. One row a key: the newest stands
-- for all before it.
create table mirror.outbox (
  tenant_id uuid not null,
  entity text not null constraint outbox_entity_check check (entity in ('accounts', 'calendars', 'events')),
  row_id uuid not null,
  version bigint not null,
  queued_at timestamptz not null default now(),
  primary key (tenant_id, entity, row_id)
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index outbox_age on mirror.outbox (tenant_id, queued_at);

-- Who drains which tenant. A wake-up is consumed when the lease is taken, before the rows are read.
create table mirror.turns (
  tenant_id uuid primary key references sync.tenants on delete cascade,
  ready_at timestamptz not null default 'infinity',
  lease_until timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index turns_ready on mirror.turns (ready_at);

create table mirror.parked_rows (
  tenant_id uuid not null,
  entity text not null,
  row_id uuid not null,
  version bigint not null,
  sqlstate text,
  reason text not null,
  parked_at timestamptz not null default now(),
  primary key (tenant_id, entity, row_id)
);

-- Accounts and calendars change in many places and seldom: the database itself gives them a version
-- and an outbox row, and only when something changed that Supabase shows.
create function mirror.stamp() returns trigger language plpgsql as $$
begin
  new.version := nextval('mirror.version');
  return new;
end $$;

create function mirror.enqueue() returns trigger language plpgsql as $$
begin
  insert into mirror.outbox as o (tenant_id, entity, row_id, version)
  values (new.tenant_id, tg_argv[0], (to_jsonb(new) ->> tg_argv[1])::uuid, new.version)
  on conflict (tenant_id, entity, row_id) do update set version = greatest(o.version, excluded.version);
  -- once a transaction: its first update holds the row, so nobody can consume the wake-up before it commits
  if current_setting('mirror.woken', true) is distinct from new.tenant_id::text then
    update mirror.turns set ready_at = least(ready_at, now()) where tenant_id = new.tenant_id;
    perform set_config('mirror.woken', new.tenant_id::text, true);
  end if;
  return null;
end $$;

create trigger accounts_stamp_insert before insert on sync.accounts for each row execute function mirror.stamp();
create trigger accounts_stamp before update on sync.accounts for each row
  when ((old.identity, old.provider, old.state, old.state_reason, old.deleted_at)
    is distinct from (new.identity, new.provider, new.state, new.state_reason, new.deleted_at))
  execute function mirror.stamp();
create trigger accounts_enqueue_insert after insert on sync.accounts for each row
  execute function mirror.enqueue('accounts', 'account_id');
create trigger accounts_enqueue after update on sync.accounts for each row
  when (old.version is distinct from new.version) execute function mirror.enqueue('accounts', 'account_id');

create trigger calendars_stamp_insert before insert on sync.calendars for each row execute function mirror.stamp();
create trigger calendars_stamp before update on sync.calendars for each row
  when ((old.name, old.time_zone, old.access_role, old.state, old.state_reason, old.deleted_at)
    is distinct from (new.name, new.time_zone, new.access_role, new.state, new.state_reason, new.deleted_at))
  execute function mirror.stamp();
create trigger calendars_enqueue_insert after insert on sync.calendars for each row
  execute function mirror.enqueue('calendars', 'calendar_id');
create trigger calendars_enqueue after update on sync.calendars for each row
  when (old.version is distinct from new.version) execute function mirror.enqueue('calendars', 'calendar_id');
"""

# Written by db.states.refusal_trigger and frozen here; tests/migrations tries every pair on a real row.
MOVES = """
create trigger units_state_moves before update of state on sync.units for each row
  when (old.state is distinct from new.state and (old.state::text, new.state::text) not in
    (('dispatched', 'idle'), ('dispatched', 'running'), ('idle', 'dispatched'), ('parked', 'idle'),
     ('running', 'dispatched'), ('running', 'idle'), ('running', 'parked')))
  execute function worker.refuse_move('state');
create trigger accounts_state_moves before update of state on sync.accounts for each row
  when (old.state is distinct from new.state and (old.state::text, new.state::text) not in
    (('connected', 'needs_reauth'), ('connected', 'removed'), ('connected', 'unusable'),
     ('needs_reauth', 'connected'), ('needs_reauth', 'removed'), ('unusable', 'connected'),
     ('unusable', 'removed')))
  execute function worker.refuse_move('state');
create trigger calendars_state_moves before update of state on sync.calendars for each row
  when (old.state is distinct from new.state and (old.state::text, new.state::text) not in
    (('confirming', 'lost'), ('confirming', 'removed'), ('confirming', 'resync'), ('confirming', 'synced'),
     ('lost', 'confirming'), ('lost', 'removed'), ('lost', 'resync'), ('lost', 'synced'),
     ('new', 'confirming'), ('new', 'lost'), ('new', 'removed'), ('new', 'synced'),
     ('resync', 'confirming'), ('resync', 'lost'), ('resync', 'removed'), ('resync', 'synced'),
     ('synced', 'confirming'), ('synced', 'lost'), ('synced', 'removed'), ('synced', 'resync')))
  execute function worker.refuse_move('state');
create trigger tasks_status_moves before update of status on worker.tasks for each row
  when (old.status is distinct from new.status and (old.status::text, new.status::text) not in
    (('pending', 'failed'), ('pending', 'processing'), ('pending', 'superseded'),
     ('processing', 'completed'), ('processing', 'failed'), ('processing', 'superseded')))
  execute function worker.refuse_move('status');
-- A live run is never taken over: only a lease that has ended frees a running unit.
create trigger units_no_takeover before update of state on sync.units for each row
  when (old.state = 'running' and new.state = 'dispatched' and old.lease_until > now())
  execute function worker.refuse_move('state');
"""


def upgrade() -> None:
    for part in (SCHEMAS, TENANTS, UNITS, ACCOUNTS, EVENTS, LEDGER, MIRROR, MOVES):
        op.execute(part)


def downgrade() -> None:
    op.execute("drop schema mirror cascade; drop schema sync cascade; drop schema worker cascade")
