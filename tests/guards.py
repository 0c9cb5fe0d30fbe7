"""Takes the guards away, one at a time, and shows that a named test fails for each (`make guards`).

A guard is a line that keeps work from being lost or doubled. Everything git knows is copied to a temporary folder;
there the guard's source text is replaced by a broken one and its test is run, which has to go red. Unbroken, all of
the tests have to be green. `make guards ARGS="take-fence start"` tries some of them.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

CHECKOUT = Path(__file__).resolve().parent.parent
COPIES = 2
TESTS_FAILED = 1  # pytest's exit code; whatever else it is, the test did not get as far as to judge

FENCES = "tests/integration/test_fences.py::"
FAULTS = "tests/integration/test_fault_injection.py::"
ONE_RUN = "tests/integration/test_one_run_at_a_time.py::TestOneRunAtATime::"
ALL_OR_NOTHING = f"{FAULTS}test_p11_a_fault_at_any_statement_leaves_all_of_a_run_or_nothing_and_heals[refused]"
UNITS = "db/repositories/units.py"
MIRRORING = "db/repositories/mirroring.py"
SCHEDULES = "db/repositories/schedules.py"
SETTLING = "tenantsync/calendars/settling.py"
FIRST_SCHEMA = "db/migrations/versions/2026_11_20_0900_first_schema.py"
SUPABASE = "supabase/migrations/20261120090000_calendar_mirror.sql"


@dataclass(frozen=True, slots=True)
class Change:
    file: str
    text: str
    """Stands in the file exactly once."""
    broken: str


@dataclass(frozen=True, slots=True)
class Guard:
    name: str
    changes: tuple[Change, ...]
    """More than one where a second line of defence would hide that the first is gone."""
    test: str


def guard(name: str, file: str, text: str, broken: str, test: str) -> Guard:
    return Guard(name, (Change(file, text, broken),), test)


LATER_OUTBOX = """
    with database.transaction() as connection:
        connection.exec_driver_sql(
            "insert into mirror.outbox (tenant_id, entity, row_id, version)"
            " select tenant_id, 'events', event_id, version from sync.events on conflict do nothing"
        )
    return merged


def _merge("""

GUARDS = (
    guard(
        "take-fence", UNITS,
        "where unit_id = :unit and tenant_id = :tenant and fence = :fence and state = 'running'",
        "where unit_id = :unit and tenant_id = :tenant",
        f"{FENCES}test_a_stale_run_takes_no_fence",
    ),
    guard(
        "take-fence, as a whole run meets it", UNITS,
        "where unit_id = :unit and tenant_id = :tenant and fence = :fence and state = 'running'",
        "where unit_id = :unit and tenant_id = :tenant and (fence = :fence or true)",
        f"{ONE_RUN}test_p69_nor_while_the_newer_run_is_still_under_way",
    ),
    guard(
        "finish", UNITS,
        "where u.fence = f.fence and u.state = 'running' order by u.unit_id for no key update of u)",
        "where u.state = 'running' order by u.unit_id for no key update of u)",
        f"{FENCES}test_a_stale_run_ends_no_newer_one",
    ),
    guard(
        "start", UNITS,
        "where u.fence = m.fence and u.state = 'dispatched' order by u.unit_id for no key update of u)",
        "where u.state = 'dispatched' order by u.unit_id for no key update of u)",
        f"{FENCES}test_a_message_whose_unit_was_claimed_anew_starts_nothing",
    ),
    guard(
        "start, once", UNITS,
        "where u.fence = m.fence and u.state = 'dispatched' order by u.unit_id for no key update of u)",
        "where u.fence = m.fence order by u.unit_id for no key update of u)",
        f"{ONE_RUN}test_p70_a_message_that_comes_twice_does_nothing_the_second_time",
    ),
    guard(
        "renew", UNITS,
        "where u.fence = m.fence and u.state = 'running' order by u.unit_id for no key update of u skip locked)",
        "where u.state = 'running' order by u.unit_id for no key update of u skip locked)",
        f"{FENCES}test_a_stale_run_renews_nobodys_lease_and_hears_of_it",
    ),
    guard(
        "hand-back", UNITS,
        "where u.fence = m.fence and u.state in ('dispatched', 'running') order by",
        "where u.state in ('dispatched', 'running') order by",
        f"{FENCES}test_a_stale_run_hands_back_nothing",
    ),
    Guard(
        "a claim waits for the lease's end",
        (
            Change(UNITS, "where w.lease_until is null or w.lease_until < now() limit", "limit"),
            Change(
                UNITS,
                "where u.next_due_at <= now() and u.lane = :lane "
                "and (u.lease_until is null or u.lease_until < now())",
                "where u.next_due_at <= now() and u.lane = :lane",
            ),
        ),
        f"{FENCES}test_a_unit_that_was_dispatched_is_not_claimed_before_its_time_to_start_is_over",
    ),
    guard(
        "a lease ends", UNITS,
        "where w.lease_until is null or w.lease_until < now() limit",
        "where w.lease_until is null limit",
        f"{ONE_RUN}test_p70_a_message_that_is_lost_costs_nothing_but_time",
    ),
    guard(
        "units_no_takeover", FIRST_SCHEMA,
        "when (old.state = 'running' and new.state = 'dispatched' and old.lease_until > now())",
        "when (old.state = 'running' and new.state = 'dispatched' and false)",
        "tests/migrations/test_moves.py::test_a_live_run_cannot_be_taken_over",
    ),
    Guard(
        "outbox with rows",
        (
            Change(
                "db/repositories/events.py",
                "select :tenant, 'events', m.event_id, m.version from merged m, base where m.version > base.version\n",
                "select :tenant, 'events', m.event_id, m.version from merged m, base where false\n",
            ),
            Change(SETTLING, "    return merged\n\n\ndef _merge(", LATER_OUTBOX.lstrip("\n")),
        ),
        ALL_OR_NOTHING,
    ),
    guard(
        "cursor with rows", SETTLING,
        "        run = _run_record(outcome, merged)\n",
        '        connection.exec_driver_sql("commit; begin")\n        run = _run_record(outcome, merged)\n',
        ALL_OR_NOTHING,
    ),
    guard(
        "acknowledged up to the version sent", MIRRORING,
        "   where o.version <= s.version\n     and (select count(*) from freed)",
        "   where true\n     and (select count(*) from freed)",
        "tests/integration/test_mirror_leases.py::"
        "test_a_late_acknowledgement_of_an_old_version_forgets_nothing_newer",
    ),
    guard(
        "one sender a tenant", MIRRORING,
        "where ready_at <= now() and (lease_until is null or lease_until < now())\n",
        "where ready_at <= now()\n",
        f"{FENCES}test_a_tenant_that_is_being_sent_is_not_leased_again_when_it_wakes",
    ),
    guard(
        "a wake-up outlives the giving back", MIRRORING,
        "                       when lk.woken then t.ready_at\n",
        "",
        "tests/integration/test_mirror_leases.py::"
        "test_a_change_that_commits_while_the_tenant_is_given_back_is_not_lost",
    ),
    guard(
        "newest wins at Supabase: the function", SUPABASE,
        "visibility,\n              excluded.provider_updated_at)\n    where excluded.version > t.version and ",
        "visibility,\n              excluded.provider_updated_at)\n    where ",
        f"{FENCES}test_the_function_at_supabase_refuses_old_versions_without_the_trigger[events]",
    ),
    guard(
        "newest wins at Supabase: the trigger", SUPABASE,
        "  if new.version <= old.version then\n",
        "  if false then\n",
        "tests/integration/test_mirror_order.py::"
        "test_p104_a_plain_upsert_past_the_function_cannot_bring_back_an_old_version",
    ),
    guard(
        "an occurrence is unique", SCHEDULES,
        "insert into worker.task_keys (key, task_id) select key, id from rows on conflict (key) do nothing"
        " returning task_id)",
        "select id as task_id from rows)",
        "tests/integration/test_occurrences.py::TestTicks::"
        "test_a_restored_table_that_forgot_how_far_it_was_doubles_nothing",
    ),
    guard(
        "an occurrence is ended by its attempt", SCHEDULES,
        "where id = :id and attempts = :attempt and status = 'processing' returning kind, status)",
        "where id = :id and status = 'processing' returning kind, status)",
        f"{FENCES}test_an_occurrence_is_not_ended_by_an_attempt_that_lost_it",
    ),
    guard(
        "Retry-After is heeded", "tenantsync/calendars/runs.py",
        "    if calendar.cooldown is not None:\n",
        "    if calendar.cooldown is not None and calendar.cooldown < 0:\n",
        "tests/integration/test_failures_google.py::TestRetryAfter::"
        "test_g61_nothing_is_asked_before_the_moment_that_google_named[seconds]",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    guard: Guard
    code: int
    seconds: float
    said: str

    @property
    def noticed(self) -> bool:
        return self.code == TESTS_FAILED


@contextmanager
def copied() -> Iterator[Path]:
    """The checkout's files as they are, in a temporary folder; what `make` installed is shared."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        for name in filter(None, listed.decode().split("\0")):
            source, target = CHECKOUT / name, Path(folder, name)
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        Path(folder, ".cache").symlink_to(CHECKOUT / ".cache")
        yield Path(folder)


def run(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code; what failed first, or else its last lines."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    failed = next((line[1:].strip() for line in lines if line.startswith("E  ")), "")
    return done.returncode, failed if done.returncode == TESTS_FAILED else "\n".join(lines[-15:])


def judge(folder: Path, guard: Guard) -> Verdict:
    """Break it, run its test, mend it."""
    whole = {change.file: (folder / change.file).read_text() for change in guard.changes}
    began = time.monotonic()
    try:
        for change in guard.changes:
            path = folder / change.file
            path.write_text(path.read_text().replace(change.text, change.broken))
        code, said = run(folder, [guard.test])
    finally:
        for name, text in whole.items():
            (folder / name).write_text(text)
    return Verdict(guard, code, time.monotonic() - began, said)


def chosen(names: Sequence[str]) -> list[Guard]:
    unknown = [name for name in names if all(name not in one.name for one in GUARDS)]
    if unknown:
        raise SystemExit(f"no guard is named {', '.join(unknown)}; there are: {'; '.join(g.name for g in GUARDS)}")
    return [one for one in GUARDS if not names or any(name in one.name for name in names)]


def main(names: Sequence[str]) -> int:
    guards = chosen(names)
    with copied() as first, copied() as second, ThreadPoolExecutor(COPIES) as threads:
        code, said = run(first, sorted({one.test for one in guards}))
        if code:
            sys.stdout.write(f"{said}\nThese tests have to be green before a guard can be judged by them.\n")
            return 1
        free: SimpleQueue[Path] = SimpleQueue()
        for folder in (first, second):
            free.put(folder)

        def one(guard: Guard) -> Verdict:
            folder = free.get()
            try:
                return judge(folder, guard)
            finally:
                free.put(folder)

        verdicts = []
        for verdict in threads.map(one, guards):
            verdicts.append(verdict)
            word = "noticed" if verdict.noticed else "NOT NOTICED"
            where = verdict.guard.test.rpartition("::")[2]
            sys.stdout.write(f"{word:12} {verdict.guard.name:38} {verdict.seconds:5.1f} s  {where}\n")
            sys.stdout.write(f"{'':12} {verdict.said[:100]}\n" if verdict.noticed else "")
            sys.stdout.flush()
    missed = [verdict for verdict in verdicts if not verdict.noticed]
    for verdict in missed:
        sys.stdout.write(f"\n{verdict.guard.name}: {verdict.guard.test} ended with {verdict.code}\n{verdict.said}\n")
    sys.stdout.write(f"{len(verdicts)} guards, {len(missed)} of them can be taken away unnoticed\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
