"""The statements of sandbox/showroom.py: an installation as it would stand after weeks at work."""

from sqlalchemy import text

TENANTS = text("""
insert into sync.tenants (tenant_id, name, created_at)
select id, name, now() - n * interval '1 hour' from unnest(cast(:ids as uuid[]), cast(:names as text[]))
  with ordinality as t(id, name, n)
""")
TURNS = text("""
insert into sync.turns (tenant_id, lane, ready_at)
select tenant_id, lane, 'infinity' from sync.tenants, unnest(array['sync', 'bulk', 'quarantine', 'isolated']) lane
on conflict do nothing
""")
MIRROR_TURNS = text("insert into mirror.turns (tenant_id) select tenant_id from sync.tenants on conflict do nothing")
WORKSPACES = text("""
insert into sync.workspaces (workspace_id, tenant_id, name)
select gen_random_uuid(), tenant_id, (array['office', 'sales', 'studio'])[n]
  from sync.tenants, generate_series(1, 3) n where n = 1 or abs(hashtext(name || n)) % 3 = 0
""")
UNITS = text("""
insert into sync.units (unit_id, tenant_id, lane, next_due_at, provider, quiet_runs, changed_runs, failed_runs)
select workspace_id, tenant_id, 'sync', now() + random() * interval '50 s', 'google',
       40000 + (random() * 4000)::int, (random() * 900)::int, (random() * 12)::int from sync.workspaces
""")
ACCOUNTS = text("""
insert into sync.accounts (account_id, tenant_id, workspace_id, provider, identity, endpoint)
select gen_random_uuid(), tenant_id, workspace_id,
    case when abs(hashtext(workspace_id::text)) % 5 = 0 then 'caldav' else 'google' end,
       'calendar-' || left(workspace_id::text, 6) || '@example.test', null from sync.workspaces
""")
CALENDARS = text("""
insert into sync.calendars
    (calendar_id, tenant_id, workspace_id, account_id, provider_key, name, state, event_count, runs, api_calls,
        saved_calls,
     last_success_at, last_attempt_at, next_due_at, listed_at, time_zone)
select gen_random_uuid(), tenant_id, workspace_id, account_id, 'c' || n,
       (array['Team', 'Rooms', '会議室', 'On call', '休暇'])[1 + (abs(hashtext(account_id::text || n)) % 5)], 'synced',
       40 + (random() * 900)::int, 42000, 43000 + (random() * 100)::int, 180000, now() - random() * interval '58 s',
       now() - random() * interval '58 s', now() + random() * interval '50 s', now() - interval '20 d', 'Asia/Tokyo'
  from sync.accounts, generate_series(1, 2) n
""")
# A small share of everything is in trouble, as it always is.
TROUBLE = (
    text("""
update sync.accounts set state = 'needs_reauth', state_reason = 'the grant was revoked (invalid_grant)'
 where abs(hashtext(account_id::text)) % 61 = 0
"""),
    text("""
update sync.calendars set failures = 3, last_error = 'the server answered 503', next_due_at = now() + interval '40 s',
       last_success_at = now() - interval '7 min' where abs(hashtext(calendar_id::text)) % 83 = 0
"""),
    text("""
update sync.tenants set paused = true, pause_reason = 'moving to another region tonight'
 where abs(hashtext(tenant_id::text)) % 47 = 0
"""),
    text("""
insert into sync.pauses (pause_id, tenant_id, paused_at, paused_by, reason)
select gen_random_uuid(), tenant_id, now() - interval '3 h', 'user:night', pause_reason from sync.tenants where paused
"""),
    text("""
update sync.units set state = 'dispatched', lease_until = now() + interval '5 s'
 where abs(hashtext(unit_id::text)) % 31 = 0
"""),
    text("""
update sync.units set state = 'running', worker_id = 'sync@worker-1' where state = 'dispatched'
"""),
    text("""
update sync.units set state = 'parked', lease_until = null, worker_id = null, crashes = 3,
    parked_at = now() - interval '2 h',
       parked_reason = 'its worker died 3 times while running it alone', next_due_at = now() + interval '40 min'
 where unit_id in (select unit_id from sync.units where state = 'running' order by unit_id limit 1)
"""),
    text("""
insert into sync.cooldowns (scope, scope_id, until, reason)
values ('account', (select account_id::text from sync.accounts limit 1), now() + interval '4 min',
    'rate limited (429)')
"""),
    text("""
insert into mirror.parked_rows (tenant_id, entity, row_id, version, sqlstate, reason, parked_at)
select tenant_id, 'events', gen_random_uuid(), 7, '23514', 'violates check constraint "events_title"',
    now() - interval '50 min'
  from sync.tenants order by name limit 2
"""),
    text("""
insert into mirror.outbox (tenant_id, entity, row_id, version, queued_at)
select tenant_id, 'events', gen_random_uuid(), 9,
    now() - random() * interval '2 s' from sync.tenants order by name limit 12
"""),
    text("update mirror.turns set ready_at = now() where tenant_id in (select tenant_id from mirror.outbox)"),
)
WORKERS = text("""
insert into worker.workers (worker_id, queues, slots, cpu_usage, memory_usage, active_tasks, started_at)
values ('sync@worker-1', array['sync'], 2, 41, 22, 2, now() - interval '9 d'),
       ('sync@worker-2', array['sync'], 2, 38, 21, 1, now() - interval '9 d'),
       ('bulk@worker-1', array['bulk'], 2, 12, 18, 0, now() - interval '9 d'),
       ('apart@worker-2', array['quarantine', 'isolated'], 2, 1, 14, 0, now() - interval '9 d'),
       ('house@worker-1', array['wakeups', 'mirror', 'maintenance'], 3, 9, 16, 1, now() - interval '9 d')
""")
POLICY = text("insert into sync.policies (since, every) values (now() - interval '40 d', interval '60 s')")
SCHEDULES = text("""
insert into worker.schedules (entry, kind, every, policy, since, last_tick, done, failed, skipped)
values ('clean-up', 'retention.cleanup', '1 h', 'latest', now() - interval '30 d', date_trunc('hour', now()), 719,
    0, 1),
       ('collect-metrics', 'metrics.collect', '15 s', 'skip', now() - interval '30 d', now() - interval '4 s',
           172781, 2, 17),
       ('audit-ledger', 'ledger.audit', '15 s', 'skip', now() - interval '30 d', now() - interval '4 s', 172790, 0,
           10),
       ('isolate-tenants', 'tenants.isolate', '10 s', 'skip', now() - interval '30 d', now() - interval '2 s',
           259188, 0, 12),
       ('tend-processes', 'processes.tend', '10 s', 'skip', now() - interval '30 d', now() - interval '2 s', 259200,
           0, 0),
       ('take-in-tasks', 'work.intake', '60 s', 'latest', now() - interval '30 d', now() - interval '31 s', 43199,
           0, 1),
       ('write-freshness', 'metrics.freshness', '5 min', 'latest', now() - interval '30 d',
           now() - interval '2 min', 8640, 0, 0)
""")
# What readings would have been: a day's rhythm, some noise, and one bad hour in every hundred.
READINGS = text("""
insert into worker.system_metrics (id, scope, worker_id, active_tasks, recorded_at, details)
select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7'
         || substr(md5(moment::text), 1, 3) || '8' || substr(md5(moment::text), 4, 15))::uuid,
       'fleet', 'fleet', (6 + 5 * light)::int, moment,
       jsonb_build_object(
         'tenants', :tenants, 'units', :units, 'calendars_watched', :calendars, 'fresh',
             (:calendars * (0.9985 - bad * 0.06))::int,
         'fresh_p50', round((30 + 2 * noise)::numeric, 1), 'fresh_p95',
             round((58 + 5 * light * noise + bad * 70)::numeric, 1),
         'fresh_max', 75, 'in_flight', (8 + 12 * light + 5 * noise)::int, 'due',
             (2 + 7 * light * noise + bad * 300)::int,
         'oldest_due', round((0.6 + 0.9 * noise * light + bad * 26)::numeric, 2),
         'oldest_unsent', round((0.2 + 0.5 * noise + bad * 14)::numeric, 2),
         'oldest_occurrence', round((0.15 + 0.25 * noise)::numeric, 2), 'outbox',
             (4 + 60 * light * noise + bad * 1900)::int,
         'parked_rows', 2, 'parked_units', 1, 'failing_calendars', (3 + (n / 700) % 3 + bad * 30)::int,
         'needs_reauth', (6 + 2 * light)::int, 'cooldowns', ((n / 400) % 2 + bad * 4)::int,
         'quiet_runs', (n * (:units * 15.0 / 60))::bigint, 'changed_runs',
             (sum(:units / 90.0 * (0.2 + light) * (0.6 + noise)) over (order by n))::bigint,
         'failed_runs', (n / 30)::bigint, 'api_calls',
             (sum(:calendars * (15.1 + 1.4 * light + noise) / 60) over (order by n))::bigint,
         'events', :events, 'missing', 0, 'doubled', 0, 'ledger_age', 4.2, 'processes_running', 3,
             'processes_waiting', 2)
  from (select n, moment, (1 + sin((extract(hour from moment) - 9) / 24 * 2 * pi())) / 2 as light,
               abs(hashtext(n::text)) % 1000 / 1000.0 as noise,
               case when (n / 240) % 31 = 23 then 1 - abs(n % 240 - 120) / 120.0 else 0 end as bad
          from (select n, now() - (:count - n) * interval '15 s' - interval '3 s' as moment
                  from generate_series(1, cast(:count as integer)) n) a) b
""")
WORKER_READINGS = text("""
insert into worker.system_metrics (id, scope, worker_id, cpu_usage, memory_usage, active_tasks, recorded_at, details)
select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7'
         || substr(md5(w || moment::text), 1, 3) || '8' || substr(md5(w || moment::text), 4, 15))::uuid,
       'worker', w, 40, 20, 1, moment, '{"slots": 2}'
  from (select now() - n * interval '15 s' as moment from generate_series(1, cast(:count as integer)) n) a,
       unnest(array['sync@worker-1', 'sync@worker-2', 'bulk@worker-1', 'apart@worker-2', 'house@worker-1']) w
""")
RUNS = text("""
with runs as (
  select gen_random_uuid() as salt, u.tenant_id, u.unit_id, now() - n * interval '97 s' as moment, n,
         abs(hashtext(u.unit_id::text || n)) as h
    from generate_series(1, cast(:count as integer)) n
    join lateral (select * from sync.units offset (n * 7) % :units limit 1) u on true),
made as (
  select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7' || substr(md5(salt::text), 1,
      3) || '8'
          || substr(md5(salt::text), 4, 15))::uuid as id, * from runs),
logged as (
  insert into worker.execution_logs (id, task_id, tenant_id, step_name, execution_time, success)
  select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint + s.n), 12, '0') || '7' || substr(md5(s.name
      || salt), 1, 3)
           || '8' || substr(md5(s.name || salt), 4, 15))::uuid, id, tenant_id, s.name,
         case s.name when 'fetch' then 180 + h % 900 else 6 + h % 60 end, not (h % 17 = 0 and s.name = 'fetch')
    from made, (values (1, 'fetch'), (2, 'apply')) s(n, name))
insert into worker.tasks
    (id, tenant_id, kind, subject_id, fence, queue, worker_id, status, started_at, completed_at, result, error_log,
        created_at)
select id, tenant_id, 'sync.unit', unit_id, 4000 + n, 'sync', 'sync@worker-' || (1 + h % 2),
       case when h % 17 = 0 then 'failed' else 'completed' end, moment - (200 + h % 900) * interval '1 ms', moment,
       jsonb_build_object('calendars', 2, 'failed', (h % 17 = 0)::int, 'inserted', h % 9, 'updated', h % 4,
           'deleted', h % 3,
         'set_aside', 0, 'calls', 2 + h % 3, 'bytes', 4100 + h % 90000, 'fetch_ms', 180 + h % 900),
       case when h % 17 = 0 then 'the server answered 503 (Service Unavailable)' end, moment from made
""")
PROOF = text("""
insert into worker.audit_logs (id, actor, action, details, created_at)
values (cast(:id as uuid), 'cli:operator', 'audit.proof', jsonb_build_object('calendars', :calendars, 'proven',
    :calendars - 9,
        'explained', 9, 'unproven', 0, 'rows', :rows, 'drift', 0), now() - interval '3 h')
""")
# What took milliseconds here would have taken minutes.
AS_LONG_AGO = (
    text("""
update process.events e set created_at = now() - (p.last_sequence - e.sequence) * interval '47 s' - interval '73 s'
  from process.processes p where p.process_id = e.process_id
"""),
    text("""
update process.processes p
   set created_at = now() - p.last_sequence * interval '47 s' - interval '73 s',
       started_at = now() - p.last_sequence * interval '47 s' - interval '70 s',
           step_started_at = now() - interval '73 s',
       completed_at = case when completed_at is not null then now() - interval '73 s' end,
       step_durations = (select coalesce(jsonb_object_agg(key, 9000 + abs(hashtext(key)) % 80000), '{}')
                           from jsonb_object_keys(step_durations) key)
"""),
    text("update process.questions set asked_at = now() - interval '73 s', expires_at = now() + interval '23 h'"),
    text("""
insert into process.deliveries (process_id, delivered_sequence, delivered_at)
select process_id, last_sequence, now() from process.processes on conflict do nothing
"""),
    text("""
insert into process.delivery_log (id, target, events, bytes, milliseconds)
select (lpad(to_hex((extract(epoch from now() - n * interval '80 s') * 1000)::bigint), 12, '0') || '7'
         || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
       'supabase', 6, 3100, array[180, 240, 310, 320, 410, 900] from generate_series(1, 40) n
"""),
)
ALIVE = (
    text("update worker.workers set heartbeat_at = now()"),
    text("update mirror.outbox set queued_at = greatest(queued_at, now() - random() * interval '2 s')"),
    text("update worker.schedules set last_tick = greatest(last_tick, now() - every)"),
    text("""
update sync.calendars set last_success_at = now() - random() * interval '30 s'
 where failures = 0 and last_success_at < now() - interval '58 s'
"""),
    text("""
insert into worker.system_metrics (id, scope, worker_id, active_tasks, details)
select :id, scope, worker_id, active_tasks,
       details || jsonb_build_object(
         'quiet_runs', (details ->> 'quiet_runs')::bigint + (details ->> 'units')::bigint / 4,
         'changed_runs', (details ->> 'changed_runs')::bigint + 1,
         'api_calls', (details ->> 'api_calls')::bigint + (details ->> 'calendars_watched')::bigint / 4)
  from (
  select * from worker.system_metrics where scope = 'fleet' order by id desc limit 1) r
 where recorded_at < now() - interval '15 s'
"""),
)
COUNTS = text("""
select (select count(*) from sync.units) as units, (select count(*) from sync.calendars) as calendars,
       (select coalesce(sum(event_count), 0) from sync.calendars) as events
""")
ANALYSE = text("analyze")
