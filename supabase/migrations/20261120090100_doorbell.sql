-- One small broadcast a tenant for what a statement adds, and one for what it changes, on the tenant's private topic: a
-- doorbell, not the data. The web app reads again when it rings, and whenever it has (re)subscribed, because Realtime
-- does not promise delivery.

create function public.mirror_announce() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.send(
    jsonb_build_object('table', tg_table_name, 'rows', c.n, 'version', c.version), 'changed', 'tenant:' || c.tenant_id, true)
  from (select tenant_id, count(*) as n, max(version) as version from changed group by tenant_id) c;
  return null;
end $$;
revoke execute on function public.mirror_announce() from public, anon, authenticated;

create trigger calendar_accounts_announce_insert after insert on public.calendar_accounts
  referencing new table as changed for each statement execute function public.mirror_announce();
create trigger calendar_accounts_announce_update after update on public.calendar_accounts
  referencing new table as changed for each statement execute function public.mirror_announce();
create trigger calendars_announce_insert after insert on public.calendars
  referencing new table as changed for each statement execute function public.mirror_announce();
create trigger calendars_announce_update after update on public.calendars
  referencing new table as changed for each statement execute function public.mirror_announce();
create trigger calendar_events_announce_insert after insert on public.calendar_events
  referencing new table as changed for each statement execute function public.mirror_announce();
create trigger calendar_events_announce_update after update on public.calendar_events
  referencing new table as changed for each statement execute function public.mirror_announce();

create policy tenant_topic on realtime.messages for select to authenticated
  using (extension = 'broadcast'
         and (select realtime.topic()) = 'tenant:' || (auth.jwt() -> 'app_metadata' ->> 'tenant_id'));
