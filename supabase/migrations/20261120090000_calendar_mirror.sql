-- The mirror's tables: what a tenant's web app reads. Written by the service role alone, and only through
-- mirror_apply, whose rule is that a version never gives way to an older one.
-- Grants are explicit: since October 2026 a hosted project grants nothing on new tables, not even to service_role.

create table public.calendar_accounts (
  id uuid primary key,
  tenant_id uuid not null,
  workspace_id uuid not null,
  version bigint not null,
  deleted_at timestamptz,
  provider text not null,
  identity text not null,
  state text not null,
  state_reason text
);

create table public.calendars (
  id uuid primary key,
  tenant_id uuid not null,
  workspace_id uuid not null,
  version bigint not null,
  deleted_at timestamptz,
  account_id uuid not null,
  provider_key text not null,
  name text not null,
  time_zone text,
  access_role text,
  state text not null,
  state_reason text
);

-- A tombstone keeps id, tenant, workspace, calendar and version; what the event said is gone.
create table public.calendar_events (
  id uuid primary key,
  tenant_id uuid not null,
  workspace_id uuid not null,
  version bigint not null,
  deleted_at timestamptz,
  calendar_id uuid not null,
  provider_key text not null,
  uid text,
  series_key text,
  status text,
  title text,
  description text,
  location text,
  starts_at timestamptz,
  ends_at timestamptz,
  all_day boolean,
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
  constraint calendar_events_shape check (deleted_at is not null or (status is not null and all_day is not null))
);
create index calendar_events_by_time on public.calendar_events (tenant_id, calendar_id, starts_at)
  where deleted_at is null;
create index calendar_events_series on public.calendar_events (calendar_id, series_key)
  where series_key is not null and deleted_at is null;
create index calendar_events_tombstones on public.calendar_events (deleted_at) where deleted_at is not null;
create index calendars_by_tenant on public.calendars (tenant_id) where deleted_at is null;
create index calendar_accounts_by_tenant on public.calendar_accounts (tenant_id) where deleted_at is null;

-- The second line of defence: whoever writes past mirror_apply cannot bring back an old version either.
create function public.mirror_guard() returns trigger language plpgsql set search_path = '' as $$
begin
  if new.version <= old.version then
    return null;
  end if;
  return new;
end $$;
create trigger calendar_accounts_guard before update on public.calendar_accounts
  for each row execute function public.mirror_guard();
create trigger calendars_guard before update on public.calendars
  for each row execute function public.mirror_guard();
create trigger calendar_events_guard before update on public.calendar_events
  for each row execute function public.mirror_guard();

-- One set of rows into one table. The fixed order of keys is what keeps overlapping calls from deadlocking; a key
-- that stands twice in a call counts once, at its highest version. A row never changes its tenant.
create function public.mirror_apply_accounts(rows jsonb) returns integer
language sql volatile security invoker set search_path = '' as $$
  with up as (
    insert into public.calendar_accounts as t
    select distinct on (r.id) r.* from jsonb_populate_recordset(null::public.calendar_accounts, rows) r
     order by r.id, r.version desc
    on conflict (id) do update set
      (workspace_id, version, deleted_at, provider, identity, state, state_reason)
        = row(excluded.workspace_id, excluded.version, excluded.deleted_at, excluded.provider, excluded.identity,
              excluded.state, excluded.state_reason)
    where excluded.version > t.version and excluded.tenant_id = t.tenant_id
    returning 1)
  select count(*)::integer from up
$$;

create function public.mirror_apply_calendars(rows jsonb) returns integer
language sql volatile security invoker set search_path = '' as $$
  with up as (
    insert into public.calendars as t
    select distinct on (r.id) r.* from jsonb_populate_recordset(null::public.calendars, rows) r
     order by r.id, r.version desc
    on conflict (id) do update set
      (workspace_id, version, deleted_at, account_id, provider_key, name, time_zone, access_role, state, state_reason)
        = row(excluded.workspace_id, excluded.version, excluded.deleted_at, excluded.account_id,
              excluded.provider_key, excluded.name, excluded.time_zone, excluded.access_role, excluded.state,
              excluded.state_reason)
    where excluded.version > t.version and excluded.tenant_id = t.tenant_id
    returning 1)
  select count(*)::integer from up
$$;

create function public.mirror_apply_events(rows jsonb) returns integer
language sql volatile security invoker set search_path = '' as $$
  with up as (
    insert into public.calendar_events as t
    select distinct on (r.id) r.* from jsonb_populate_recordset(null::public.calendar_events, rows) r
     order by r.id, r.version desc
    on conflict (id) do update set
      (workspace_id, version, deleted_at, calendar_id, provider_key, uid, series_key, status, title, description,
       location, starts_at, ends_at, all_day, time_zone, recurrence, original_start, original_all_day, organizer,
       attendees, link, transparency, visibility, provider_updated_at)
        = row(excluded.workspace_id, excluded.version, excluded.deleted_at, excluded.calendar_id,
              excluded.provider_key, excluded.uid, excluded.series_key, excluded.status, excluded.title,
              excluded.description, excluded.location, excluded.starts_at, excluded.ends_at, excluded.all_day,
              excluded.time_zone, excluded.recurrence, excluded.original_start, excluded.original_all_day,
              excluded.organizer, excluded.attendees, excluded.link, excluded.transparency, excluded.visibility,
              excluded.provider_updated_at)
    where excluded.version > t.version and excluded.tenant_id = t.tenant_id
    returning 1)
  select count(*)::integer from up
$$;

create function public.mirror_apply_set(target text, rows jsonb) returns integer
language plpgsql volatile security invoker set search_path = '' as $$
begin
  case target
    when 'accounts' then return public.mirror_apply_accounts(rows);
    when 'calendars' then return public.mirror_apply_calendars(rows);
    when 'events' then return public.mirror_apply_events(rows);
    else raise exception 'mirror_apply knows accounts, calendars and events, not %', target using errcode = '42704';
  end case;
end $$;

-- What the mirror calls. A row that breaks a rule (SQLSTATE class 22 or 23; what a trigger or an index of the project's
-- own refuses: P0001, 44000, 54000) is named in `rejected` and holds up nobody: the set is then applied row by row.
create function public.mirror_apply(target text, rows jsonb) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
  rejected jsonb := '[]';
  applied integer := 0;
  one jsonb;
begin
  begin
    applied := public.mirror_apply_set(target, rows);
    return jsonb_build_object('received', jsonb_array_length(rows), 'applied', applied, 'rejected', rejected);
  exception when data_exception or integrity_constraint_violation or raise_exception or with_check_option_violation
      or program_limit_exceeded then
    null;
  end;
  for one in select e.value from jsonb_array_elements(rows) e order by e.value ->> 'id', e.value ->> 'version' loop
    begin
      applied := applied + public.mirror_apply_set(target, jsonb_build_array(one));
    exception when data_exception or integrity_constraint_violation or raise_exception or with_check_option_violation
      or program_limit_exceeded then
      rejected := rejected || jsonb_build_object('id', one -> 'id', 'version', one -> 'version', 'sqlstate', sqlstate);
    end;
  end loop;
  return jsonb_build_object('received', jsonb_array_length(rows), 'applied', applied, 'rejected', rejected);
end $$;

-- Tombstones leave when no late copy of their row can still be under way.
create function public.mirror_purge(before timestamptz) returns integer
language sql volatile security invoker set search_path = '' as $$
  with events as (delete from public.calendar_events where deleted_at < before returning 1),
  calendars as (delete from public.calendars where deleted_at < before returning 1),
  accounts as (delete from public.calendar_accounts where deleted_at < before returning 1)
  select ((select count(*) from events) + (select count(*) from calendars) + (select count(*) from accounts))::integer
$$;

revoke execute on function
  public.mirror_guard(), public.mirror_apply_accounts(jsonb), public.mirror_apply_calendars(jsonb),
  public.mirror_apply_events(jsonb), public.mirror_apply_set(text, jsonb), public.mirror_apply(text, jsonb),
  public.mirror_purge(timestamptz)
from public, anon, authenticated;
grant execute on function
  public.mirror_apply_accounts(jsonb), public.mirror_apply_calendars(jsonb), public.mirror_apply_events(jsonb),
  public.mirror_apply_set(text, jsonb), public.mirror_apply(text, jsonb), public.mirror_purge(timestamptz)
to service_role;

-- A member reads the rows of the tenant that app_metadata.tenant_id names; where app_metadata.workspace_ids is
-- given, of those workspaces alone. Tombstones and everything else stay hidden. Nobody but the service role writes.
create function public.mirror_may_read(tenant uuid, workspace uuid) returns boolean
language sql stable security invoker set search_path = '' as $$
  select tenant = nullif(auth.jwt() -> 'app_metadata' ->> 'tenant_id', '')::uuid
     and (auth.jwt() -> 'app_metadata' -> 'workspace_ids' is null
          or auth.jwt() -> 'app_metadata' -> 'workspace_ids' ? workspace::text)
$$;
revoke execute on function public.mirror_may_read(uuid, uuid) from public, anon;
grant execute on function public.mirror_may_read(uuid, uuid) to authenticated;

revoke all on public.calendar_accounts, public.calendars, public.calendar_events from anon, authenticated;
grant select on public.calendar_accounts, public.calendars, public.calendar_events to authenticated;
grant select, insert, update, delete on public.calendar_accounts, public.calendars, public.calendar_events
  to service_role;

alter table public.calendar_accounts enable row level security;
alter table public.calendars enable row level security;
alter table public.calendar_events enable row level security;
create policy members_read on public.calendar_accounts for select to authenticated
  using (deleted_at is null and public.mirror_may_read(tenant_id, workspace_id));
create policy members_read on public.calendars for select to authenticated
  using (deleted_at is null and public.mirror_may_read(tenant_id, workspace_id));
create policy members_read on public.calendar_events for select to authenticated
  using (deleted_at is null and public.mirror_may_read(tenant_id, workspace_id));

notify pgrst, 'reload schema';
