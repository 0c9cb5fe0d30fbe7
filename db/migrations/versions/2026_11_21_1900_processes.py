"""Tasks taken in from Supabase, processes with their events and questions, and the people who log in.

Safe on a live system: new tables, columns with constant defaults, and wider checks.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TASKS = """
alter table worker.tasks drop constraint tasks_status_check;
alter table worker.tasks add constraint tasks_status_check check (status in
  ('pending', 'processing', 'waiting', 'completed', 'failed', 'cancelled', 'superseded', 'skipped'));
alter table worker.tasks add workspace_id uuid;
alter table worker.tasks add payload jsonb;
alter table worker.tasks add requested_by text;
alter table worker.tasks add version bigint not null default 0;
-- Tasks that somebody asked for are few among the runs of units: lists of them walk these alone.
create index tasks_asked on worker.tasks (id) where supabase_task_id is not null or requested_by is not null;
create index tasks_asked_of on worker.tasks (tenant_id, id)
  where supabase_task_id is not null or requested_by is not null;
-- The overview's plots read a few of the fleet's readings among those of all tenants.
create index system_metrics_fleet on worker.system_metrics (id) where scope = 'fleet';

-- Something outside rang: there is something to fetch. However often it rings, it is answered once, and at most once
-- more for what rang meanwhile.
create table worker.bells (
  bell text primary key,
  rung_at timestamptz not null default clock_timestamp(),
  answered_at timestamptz not null default '-infinity'
);

drop trigger tasks_status_moves on worker.tasks;
create trigger tasks_status_moves before update of status on worker.tasks for each row
  when (old.status is distinct from new.status and (old.status::text, new.status::text) not in
    (('pending', 'cancelled'), ('pending', 'failed'), ('pending', 'processing'), ('pending', 'superseded'),
     ('pending', 'waiting'), ('processing', 'cancelled'), ('processing', 'completed'), ('processing', 'failed'),
     ('processing', 'pending'), ('processing', 'superseded'), ('processing', 'waiting'), ('waiting', 'cancelled'),
     ('waiting', 'failed'), ('waiting', 'pending')))
  execute function worker.refuse_move('status');
"""

PROCESSES = """
create schema process;

-- What people watch and answer. A task that was taken in has a process of the same id; first syncs, resyncs and
-- questions about accounts have processes without a task.
create table process.processes (
  process_id uuid primary key,
  tenant_id uuid not null references sync.tenants on delete cascade,
  workspace_id uuid,
  kind text not null,
  subject_id uuid,
  parent_id uuid references process.processes on delete set null,
  title text not null default '',
  state text not null default 'pending' constraint processes_state_check
    check (state in ('pending', 'running', 'waiting', 'paused', 'completed', 'failed', 'cancelled')),
  step text,
  step_started_at timestamptz,
  step_durations jsonb not null default '{}',
  completed_steps integer not null default 0,
  total_steps integer,
  percentage real constraint processes_percentage_check check (percentage between 0 and 100),
  estimated_completion_at timestamptz,
  priority smallint not null default 5 constraint processes_priority_check check (priority between 1 and 10),
  tags text[] not null default '{}',
  attempt integer not null default 0,
  retry_count integer not null default 0,
  max_retries integer not null default 3,
  pause_requested boolean not null default false,
  cancel_requested boolean not null default false,
  -- the queue of the task that runs it; null where a sync run moves it on
  queue text,
  deadline_at timestamptz,
  memo jsonb not null default '{}',
  result jsonb,
  error text,
  worker_id text,
  lease_until timestamptz,
  heartbeat_at timestamptz,
  last_sequence bigint not null default 0,
  version bigint not null default 0,
  started_by text not null default 'system',
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  updated_at timestamptz not null default now()
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index processes_tenant on process.processes (tenant_id, process_id);
create index processes_open on process.processes (state, lease_until)
  where state in ('pending', 'running', 'waiting', 'paused');
create index processes_to_run on process.processes (queue, tenant_id, priority, process_id) where state = 'pending';
create index processes_subject on process.processes (subject_id) where subject_id is not null;
create index processes_parent on process.processes (parent_id) where parent_id is not null;
create index processes_closed on process.processes (completed_at) where completed_at is not null;
-- One open process for one purpose: the second starter finds the first one's.
create unique index processes_once on process.processes (kind, subject_id)
  where subject_id is not null and state in ('pending', 'running', 'waiting', 'paused');

-- Numbered without gaps: the number is taken from the process' row, in the transaction of the insert. Partitioned by
-- ranges of the process' UUIDv7 id, so that (process_id, sequence) is unique over all months.
create table process.events (
  process_id uuid not null,
  sequence bigint not null,
  event_id uuid not null,
  tenant_id uuid not null,
  event_type text not null,
  data jsonb not null default '{}',
  category text not null,
  priority smallint not null constraint events_priority_check check (priority between 1 and 10),
  source text not null,
  created_at timestamptz not null default clock_timestamp(),
  archived boolean not null default false,
  primary key (process_id, sequence)
) partition by range (process_id);
create index events_created on process.events (created_at);
create index events_to_archive on process.events (created_at) where not archived and category in ('system', 'debug');
create table process.events_default partition of process.events default;

-- The newest of a chatty type: what waits for its interval to pass, and when the last one was published.
create table process.snapshots (
  process_id uuid not null references process.processes on delete cascade,
  event_type text not null,
  published_at timestamptz not null,
  pending jsonb,
  due_at timestamptz,
  primary key (process_id, event_type)
) with (fillfactor = 50);
create index snapshots_due on process.snapshots (due_at) where due_at is not null;

-- A question to a person. One open at a time; a name is asked once, its answer is what a resumed run reads.
create table process.questions (
  question_id uuid primary key,
  process_id uuid not null references process.processes on delete cascade,
  tenant_id uuid not null,
  name text not null,
  input_type text not null,
  prompt text not null default '',
  options jsonb not null default '[]',
  actions text[] not null default '{}',
  answer_schema jsonb,
  state text not null default 'open' constraint questions_state_check
    check (state in ('open', 'answered', 'expired', 'withdrawn')),
  asked_at timestamptz not null default now(),
  remind_at timestamptz,
  reminded_at timestamptz,
  expires_at timestamptz,
  default_answer jsonb,
  answer jsonb,
  answered_by text,
  answered_at timestamptz,
  constraint questions_process_id_name_key unique (process_id, name)
);
create unique index questions_open on process.questions (process_id) where state = 'open';
create index questions_tenant on process.questions (tenant_id, question_id) where state = 'open';
create index questions_due on process.questions (least(remind_at, expires_at)) where state = 'open';

-- How far each reader has confirmed that it read.
create table process.acknowledgements (
  process_id uuid not null references process.processes on delete cascade,
  reader text not null,
  sequence bigint not null,
  acknowledged_at timestamptz not null default now(),
  primary key (process_id, reader)
);

-- How far Supabase has each process' events.
create table process.deliveries (
  process_id uuid primary key references process.processes on delete cascade,
  delivered_sequence bigint not null default 0,
  attempts integer not null default 0,
  last_error text,
  delivered_at timestamptz
) with (fillfactor = 70);

-- One row a call that delivered events: what success rate, sizes and the 95th percentile are reckoned from.
create table process.delivery_log (
  id uuid not null,
  target text not null,
  events integer not null,
  failed integer not null default 0,
  bytes bigint not null default 0,
  milliseconds integer[] not null default '{}',
  logged_at timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create table process.delivery_log_default partition of process.delivery_log default;

-- Written by db.states.refusal_trigger and frozen here; tests/migrations tries every pair on a real row.
create trigger processes_state_moves before update of state on process.processes for each row
  when (old.state is distinct from new.state and (old.state::text, new.state::text) not in
    (('paused', 'cancelled'), ('paused', 'failed'), ('paused', 'pending'), ('pending', 'cancelled'),
     ('pending', 'failed'), ('pending', 'paused'), ('pending', 'running'), ('running', 'cancelled'),
     ('running', 'completed'), ('running', 'failed'), ('running', 'paused'), ('running', 'pending'),
     ('running', 'waiting'), ('waiting', 'cancelled'), ('waiting', 'completed'), ('waiting', 'failed'),
     ('waiting', 'paused'), ('waiting', 'pending')))
  execute function worker.refuse_move('state');
create trigger questions_state_moves before update of state on process.questions for each row
  when (old.state is distinct from new.state and (old.state::text, new.state::text) not in
    (('open', 'answered'), ('open', 'expired'), ('open', 'withdrawn')))
  execute function worker.refuse_move('state');
"""

MIRROR = """
alter table mirror.outbox drop constraint outbox_entity_check;
alter table mirror.outbox add constraint outbox_entity_check
  check (entity in ('accounts', 'calendars', 'events', 'tasks', 'processes', 'process_events'));

create index outbox_live on mirror.outbox (tenant_id, queued_at)
  where entity in ('tasks', 'processes', 'process_events');

create trigger processes_stamp_insert before insert on process.processes
  for each row execute function mirror.stamp();
create trigger processes_stamp before update on process.processes for each row
  when ((old.state, old.step, old.title, old.percentage, old.completed_steps, old.total_steps, old.tags, old.priority,
         old.retry_count, old.estimated_completion_at, old.step_durations, old.result, old.error, old.pause_requested,
         old.parent_id, old.completed_at)
    is distinct from
        (new.state, new.step, new.title, new.percentage, new.completed_steps, new.total_steps, new.tags, new.priority,
         new.retry_count, new.estimated_completion_at, new.step_durations, new.result, new.error, new.pause_requested,
         new.parent_id, new.completed_at))
  execute function mirror.stamp();
create trigger processes_enqueue_insert after insert on process.processes for each row
  execute function mirror.enqueue('processes', 'process_id');
create trigger processes_enqueue after update on process.processes for each row
  when (old.version is distinct from new.version) execute function mirror.enqueue('processes', 'process_id');

-- The version of a process' events is the number of the last one.
create function mirror.enqueue_events() returns trigger language plpgsql as $$
begin
  insert into mirror.outbox as o (tenant_id, entity, row_id, version)
  values (new.tenant_id, 'process_events', new.process_id, new.last_sequence)
  on conflict (tenant_id, entity, row_id) do update set version = greatest(o.version, excluded.version);
  if current_setting('mirror.woken', true) is distinct from new.tenant_id::text then
    update mirror.turns set ready_at = least(ready_at, now()) where tenant_id = new.tenant_id;
    perform set_config('mirror.woken', new.tenant_id::text, true);
  end if;
  return null;
end $$;
create trigger processes_events_enqueue after update on process.processes for each row
  when (old.last_sequence is distinct from new.last_sequence) execute function mirror.enqueue_events();

-- The ledger's row of a task that was taken in follows its process; nothing else moves it.
create function process.tell_task() returns trigger language plpgsql as $$
begin
  update worker.tasks
     set status = case new.state when 'running' then 'processing' when 'paused' then 'waiting' else new.state end,
         worker_id = coalesce(new.worker_id, 'unassigned'), attempts = new.attempt, lease_until = new.lease_until,
         started_at = new.started_at, completed_at = new.completed_at, result = new.result, error_log = new.error,
         updated_at = now()
   where id = new.process_id;
  return null;
end $$;
create trigger processes_tell_task after update on process.processes for each row
  when (new.queue is not null and old.state is distinct from new.state) execute function process.tell_task();

create trigger tasks_stamp before update on worker.tasks for each row
  when (new.supabase_task_id is not null and (old.status, old.worker_id, old.result, old.error_log, old.started_at,
         old.completed_at)
    is distinct from (new.status, new.worker_id, new.result, new.error_log, new.started_at, new.completed_at))
  execute function mirror.stamp();
create trigger tasks_stamp_insert before insert on worker.tasks for each row
  when (new.supabase_task_id is not null) execute function mirror.stamp();
create trigger tasks_enqueue_insert after insert on worker.tasks for each row
  when (new.supabase_task_id is not null) execute function mirror.enqueue('tasks', 'id');
create trigger tasks_enqueue after update on worker.tasks for each row
  when (new.supabase_task_id is not null and old.version is distinct from new.version)
  execute function mirror.enqueue('tasks', 'id');
"""

IDENTITY = """
create schema identity;

create table identity.users (
  user_id uuid primary key,
  tenant_id uuid references sync.tenants on delete cascade,
  email text not null,
  name text not null default '',
  role text not null constraint users_role_check check (role in ('operator', 'admin', 'member')),
  password_hash text,
  language text not null default 'en',
  disabled_at timestamptz,
  last_login_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- an operator belongs to no tenant, everybody else to one
  constraint users_tenant_check check ((role = 'operator') = (tenant_id is null))
);
create unique index users_email on identity.users (lower(email));
create index users_tenant on identity.users (tenant_id, user_id);

-- A log-in and all refresh tokens that follow from it.
create table identity.sessions (
  session_id uuid primary key,
  user_id uuid not null references identity.users on delete cascade,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  last_used_at timestamptz not null default now(),
  revoked_at timestamptz,
  revoked_reason text,
  user_agent text
);
create index sessions_user on identity.sessions (user_id);
create index sessions_expired on identity.sessions (expires_at);

-- Hashes only. A token that is used twice was stolen: its session ends.
create table identity.refresh_tokens (
  token_hash bytea primary key,
  session_id uuid not null references identity.sessions on delete cascade,
  issued_at timestamptz not null default now(),
  used_at timestamptz
);
create index refresh_tokens_session on identity.refresh_tokens (session_id);

-- Log-in attempts as theoretical arrival times (GCRA), by address and by account.
create table identity.attempts (
  key text primary key,
  tat timestamptz not null
);

-- The first answer to a request that bears an Idempotency-Key, for those that come again.
create table identity.idempotency_keys (
  viewer text not null,
  key text not null,
  fingerprint text not null,
  status smallint,
  headers jsonb,
  body bytea,
  created_at timestamptz not null default now(),
  primary key (viewer, key)
);
create index idempotency_keys_age on identity.idempotency_keys (created_at);
"""


def upgrade() -> None:
    for part in (TASKS, PROCESSES, MIRROR, IDENTITY):
        op.execute(part)


def downgrade() -> None:
    op.execute("""
    drop schema identity cascade;
    drop trigger tasks_stamp on worker.tasks;
    drop trigger tasks_stamp_insert on worker.tasks;
    drop trigger tasks_enqueue_insert on worker.tasks;
    drop trigger tasks_enqueue on worker.tasks;
    drop schema process cascade;
    drop function mirror.enqueue_events();
    drop index mirror.outbox_live;
    delete from mirror.outbox where entity in ('tasks', 'processes', 'process_events');
    delete from mirror.parked_rows where entity in ('tasks', 'processes', 'process_events');
    alter table mirror.outbox drop constraint outbox_entity_check;
    alter table mirror.outbox add constraint outbox_entity_check check (entity in ('accounts', 'calendars', 'events'));
    drop trigger tasks_status_moves on worker.tasks;
    update worker.tasks
       set status = 'failed', completed_at = coalesce(completed_at, now()),
           error_log = 'cancelled, or not over, before a downgrade'
     where status in ('waiting', 'cancelled')
        or status in ('pending', 'processing') and (supabase_task_id is not null or requested_by is not null);
    create trigger tasks_status_moves before update of status on worker.tasks for each row
      when (old.status is distinct from new.status and (old.status::text, new.status::text) not in
        (('pending', 'failed'), ('pending', 'processing'), ('pending', 'superseded'),
         ('processing', 'completed'), ('processing', 'failed'), ('processing', 'superseded')))
      execute function worker.refuse_move('status');
    alter table worker.tasks drop constraint tasks_status_check;
    alter table worker.tasks add constraint tasks_status_check check (status in
      ('pending', 'processing', 'completed', 'failed', 'superseded', 'skipped'));
    drop index worker.system_metrics_fleet;
    drop index worker.tasks_asked, worker.tasks_asked_of;
    drop table worker.bells;
    alter table worker.tasks drop workspace_id, drop payload, drop requested_by, drop version;
    """)
