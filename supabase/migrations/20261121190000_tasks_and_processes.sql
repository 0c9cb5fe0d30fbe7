-- What a tenant's web app asks of the workers, and what it sees of their work while it goes on. `tasks` is written by
-- both sides: members insert a row and may ask for its cancelling, the workers bring back status, result and error.
-- `processes` and `process_events` are mirrored like the calendars.

create table public.tasks (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null,
  workspace_id uuid,
  kind text not null constraint tasks_kind_length check (length(kind) between 1 and 100),
  payload jsonb not null default '{}' constraint tasks_payload_size check (pg_column_size(payload) <= 262144)
    -- 1e131071 is ten bytes here and 131 kB for whoever reads it, and what is nested without end nobody reads
    constraint tasks_payload_plain check (
      case when jsonb_path_exists(payload, 'strict $.**{64}')
             or jsonb_path_exists(payload, 'strict $.** ? (@ > 1e308 || @ < -1e308)') then false
           else octet_length(payload::text) <= 524288 end),
  priority smallint not null default 5 constraint tasks_priority_check check (priority between 1 and 10),
  status text not null default 'pending' constraint tasks_status_check
    check (status in ('pending', 'processing', 'waiting', 'completed', 'failed', 'cancelled')),
  worker_id text,
  result jsonb,
  error_message text,
  -- the subject of the token; not always a UUID where somebody else than Supabase signs people in
  created_by text default auth.jwt() ->> 'sub',
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  cancel_requested_at timestamptz,
  -- the process to watch; none where the task was refused
  process_id uuid,
  -- 0 until a worker database has taken the task in; from then on only that database moves it
  version bigint not null default 0
);
create index tasks_new on public.tasks (priority, created_at, id) where version = 0;
create index tasks_new_of_tenant on public.tasks (tenant_id) where version = 0;
create index tasks_to_cancel on public.tasks (cancel_requested_at)
  where cancel_requested_at is not null and status in ('pending', 'processing', 'waiting');
create index tasks_by_tenant on public.tasks (tenant_id, created_at desc);

create table public.processes (
  id uuid primary key,
  tenant_id uuid not null,
  workspace_id uuid,
  version bigint not null,
  kind text not null,
  subject_id uuid,
  parent_id uuid,
  title text not null,
  state text not null,
  step text,
  step_durations jsonb not null,
  completed_steps integer not null,
  total_steps integer,
  percentage real,
  estimated_completion_at timestamptz,
  priority smallint not null,
  tags text[] not null,
  retry_count integer not null,
  max_retries integer not null,
  pause_requested boolean not null,
  result jsonb,
  error text,
  started_by text not null,
  created_at timestamptz not null,
  started_at timestamptz,
  completed_at timestamptz
);
create index processes_by_tenant on public.processes (tenant_id, created_at desc);
create index processes_closed on public.processes (completed_at) where completed_at is not null;

create table public.process_events (
  process_id uuid not null,
  sequence bigint not null,
  id uuid not null,
  tenant_id uuid not null,
  workspace_id uuid,
  event_type text not null,
  event_data jsonb not null,
  event_category text not null,
  event_priority smallint not null,
  event_source text not null,
  created_at timestamptz not null,
  primary key (process_id, sequence)
);
create index process_events_age on public.process_events (created_at);
-- what an audit of one tenant walks along
create index process_events_by_tenant on public.process_events (tenant_id, process_id, sequence);

create trigger processes_guard before update on public.processes
  for each row execute function public.mirror_guard();

-- A task is changed by both sides: its versions guard what the workers write, and a wish to cancel is stamped here,
-- once, and stays.
create function public.tasks_guard() returns trigger language plpgsql set search_path = '' as $$
begin
  if new.version < old.version then
    return null;
  end if;
  if old.cancel_requested_at is not null then
    new.cancel_requested_at := old.cancel_requested_at;
  elsif new.cancel_requested_at is not null then
    new.cancel_requested_at := now();
  end if;
  return new;
end $$;
create trigger tasks_guard before update on public.tasks for each row execute function public.tasks_guard();

-- A task that its web app has deleted meanwhile is not brought back.
create function public.mirror_apply_tasks(rows jsonb) returns integer
language sql volatile security invoker set search_path = '' as $$
  with newest as (
    select distinct on (r.id) r.* from jsonb_populate_recordset(null::public.tasks, rows) r
     order by r.id, r.version desc),
  locked as (
    select t.id from public.tasks t join newest r on r.id = t.id and r.tenant_id = t.tenant_id
     where r.version > t.version order by t.id for update of t),
  up as (
    update public.tasks t
       set status = r.status, worker_id = r.worker_id, result = r.result, error_message = r.error_message,
           started_at = r.started_at, completed_at = r.completed_at, process_id = r.process_id, version = r.version
      from newest r join locked l on l.id = r.id where t.id = r.id and r.version > t.version
    returning 1)
  select count(*)::integer from up
$$;

create function public.mirror_apply_processes(rows jsonb) returns integer
language sql volatile security invoker set search_path = '' as $$
  with up as (
    insert into public.processes as t
    select distinct on (r.id) r.* from jsonb_populate_recordset(null::public.processes, rows) r
     order by r.id, r.version desc
    on conflict (id) do update set
      (workspace_id, version, kind, subject_id, parent_id, title, state, step, step_durations, completed_steps,
       total_steps, percentage, estimated_completion_at, priority, tags, retry_count, max_retries, pause_requested,
       result, error, started_by, created_at, started_at, completed_at)
        = row(excluded.workspace_id, excluded.version, excluded.kind, excluded.subject_id, excluded.parent_id,
              excluded.title, excluded.state, excluded.step, excluded.step_durations, excluded.completed_steps,
              excluded.total_steps, excluded.percentage, excluded.estimated_completion_at, excluded.priority,
              excluded.tags, excluded.retry_count, excluded.max_retries, excluded.pause_requested, excluded.result,
              excluded.error, excluded.started_by, excluded.created_at, excluded.started_at, excluded.completed_at)
    where excluded.version > t.version and excluded.tenant_id = t.tenant_id
    returning 1)
  select count(*)::integer from up
$$;

-- An event never changes: one that is there already came twice.
create function public.mirror_apply_process_events(rows jsonb) returns integer
language sql volatile security invoker set search_path = '' as $$
  with new as (
    insert into public.process_events
    select distinct on (r.process_id, r.sequence) r.*
      from jsonb_populate_recordset(null::public.process_events, rows) r
     order by r.process_id, r.sequence
    on conflict (process_id, sequence) do nothing
    returning 1)
  select count(*)::integer from new
$$;

create or replace function public.mirror_apply_set(target text, rows jsonb) returns integer
language plpgsql volatile security invoker set search_path = '' as $$
begin
  case target
    when 'accounts' then return public.mirror_apply_accounts(rows);
    when 'calendars' then return public.mirror_apply_calendars(rows);
    when 'events' then return public.mirror_apply_events(rows);
    when 'tasks' then return public.mirror_apply_tasks(rows);
    when 'processes' then return public.mirror_apply_processes(rows);
    when 'process_events' then return public.mirror_apply_process_events(rows);
    else raise exception 'mirror_apply knows no %', target using errcode = '42704';
  end case;
end $$;

-- As before; and a process whose event is refused gets none of the later ones, so that its events stay in order.
create or replace function public.mirror_apply(target text, rows jsonb) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
  rejected jsonb := '[]';
  applied integer := 0;
  stopped text[] := '{}';
  one jsonb;
begin
  begin
    applied := public.mirror_apply_set(target, rows);
    return jsonb_build_object('received', jsonb_array_length(rows), 'applied', applied, 'rejected', rejected);
  exception when data_exception or integrity_constraint_violation or raise_exception or with_check_option_violation
      or program_limit_exceeded then
    null;
  end;
  for one in
    select e.value from jsonb_array_elements(rows) e
     order by e.value ->> 'process_id', (e.value ->> 'sequence')::bigint, e.value ->> 'id', e.value ->> 'version'
  loop
    continue when one ->> 'process_id' = any (stopped);
    begin
      applied := applied + public.mirror_apply_set(target, jsonb_build_array(one));
    exception when data_exception or integrity_constraint_violation or raise_exception or with_check_option_violation
        or program_limit_exceeded then
      rejected := rejected || jsonb_build_object('id', one -> 'id', 'version', one -> 'version', 'sqlstate', sqlstate);
      stopped := stopped || (one ->> 'process_id');
    end;
  end loop;
  return jsonb_build_object('received', jsonb_array_length(rows), 'applied', applied, 'rejected', rejected);
end $$;

-- What retention lets go here: events by age and category, and processes that ended long ago.
create function public.process_purge(before timestamptz, archived_before timestamptz) returns integer
language sql volatile security invoker set search_path = '' as $$
  with old as (
    delete from public.process_events
     where created_at < before or (created_at < archived_before and event_category in ('system', 'debug')) returning 1),
  closed as (delete from public.processes where completed_at < before returning 1)
  select ((select count(*) from old) + (select count(*) from closed))::integer
$$;

revoke execute on function
  public.tasks_guard(), public.mirror_apply_tasks(jsonb), public.mirror_apply_processes(jsonb), public.mirror_apply_process_events(jsonb),
  public.process_purge(timestamptz, timestamptz)
from public, anon, authenticated;
grant execute on function
  public.mirror_apply_tasks(jsonb), public.mirror_apply_processes(jsonb), public.mirror_apply_process_events(jsonb),
  public.process_purge(timestamptz, timestamptz)
to service_role;

revoke all on public.tasks, public.processes, public.process_events from anon, authenticated;
grant select on public.tasks, public.processes, public.process_events to authenticated;
grant insert (id, tenant_id, workspace_id, kind, payload, priority) on public.tasks to authenticated;
grant update (cancel_requested_at) on public.tasks to authenticated;
grant select, insert, update, delete on public.tasks, public.processes, public.process_events to service_role;

-- A row without a workspace is the whole tenant's: `mirror_may_read` answers null for it to a member of some workspaces
-- only, who therefore neither sees such a row nor asks for one.
alter table public.tasks enable row level security;
alter table public.processes enable row level security;
alter table public.process_events enable row level security;
create policy members_read on public.tasks for select to authenticated
  using (public.mirror_may_read(tenant_id, workspace_id));
create policy members_ask on public.tasks for insert to authenticated
  with check (public.mirror_may_read(tenant_id, workspace_id));
create policy members_cancel on public.tasks for update to authenticated
  using (public.mirror_may_read(tenant_id, workspace_id) and status in ('pending', 'processing', 'waiting'))
  with check (public.mirror_may_read(tenant_id, workspace_id));
create policy members_read on public.processes for select to authenticated
  using (public.mirror_may_read(tenant_id, workspace_id));
create policy members_read on public.process_events for select to authenticated
  using (public.mirror_may_read(tenant_id, workspace_id));

-- Doorbells: the tenant's for what comes back, one a process and statement; the workers' for what is asked.
create trigger tasks_announce_update after update on public.tasks
  referencing new table as changed for each statement execute function public.mirror_announce();
create trigger processes_announce_insert after insert on public.processes
  referencing new table as changed for each statement execute function public.mirror_announce();
create trigger processes_announce_update after update on public.processes
  referencing new table as changed for each statement execute function public.mirror_announce();

create function public.process_events_announce() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.send(
    jsonb_build_object('table', 'process_events', 'process_id', c.process_id, 'sequence', c.sequence),
    'process_events', 'tenant:' || c.tenant_id, true)
  from (select tenant_id, process_id, max(sequence) as sequence from changed group by tenant_id, process_id) c;
  return null;
end $$;
revoke execute on function public.process_events_announce() from public, anon, authenticated;
create trigger process_events_announce_insert after insert on public.process_events
  referencing new table as changed for each statement execute function public.process_events_announce();

-- Workers take in what is most urgent and oldest, whosever it is: a member who asks for a hundred thousand things at
-- once would keep all other tenants waiting. Counted is what the member may see; the service role may ask without end.
create function public.tasks_enough() returns trigger
language plpgsql set search_path = '' as $$
begin
  if auth.jwt() ->> 'role' = 'authenticated' and exists (
      select from (select distinct tenant_id from changed) c
       where (select count(*) from (select from public.tasks t where t.tenant_id = c.tenant_id and t.version = 0
                                     limit 1001) n) > 1000) then
    raise exception 'a thousand tasks of the tenant wait to be taken in: ask again when some of them were'
      using errcode = 'PT429';
  end if;
  return null;
end $$;
revoke execute on function public.tasks_enough() from public, anon, authenticated;
create trigger tasks_enough_insert after insert on public.tasks
  referencing new table as changed for each statement execute function public.tasks_enough();

-- Only what happened rings: a statement that inserted or cancelled nothing is not heard.
create function public.tasks_ring_inserted() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if exists (select from changed where version = 0) then
    perform realtime.send('{"table": "tasks"}', 'inserted', 'workers', true);
  end if;
  return null;
end $$;
create function public.tasks_ring_cancelled() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if exists (select from changed join earlier using (id)
              where changed.cancel_requested_at is not null and earlier.cancel_requested_at is null) then
    perform realtime.send('{"table": "tasks"}', 'cancelled', 'workers', true);
  end if;
  return null;
end $$;
revoke execute on function public.tasks_ring_inserted(), public.tasks_ring_cancelled()
from public, anon, authenticated;
create trigger tasks_ring_insert after insert on public.tasks
  referencing new table as changed for each statement execute function public.tasks_ring_inserted();
create trigger tasks_ring_update after update on public.tasks
  referencing old table as earlier new table as changed for each statement
  execute function public.tasks_ring_cancelled();

notify pgrst, 'reload schema';
