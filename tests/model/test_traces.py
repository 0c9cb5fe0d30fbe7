"""The model is one of this code: what real runs do, struck as they may be, it allows; all else it refuses."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from config.settings import Settings
from sandbox.google.control import GoogleControl
from sandbox.google.specs import FleetSpec, SeedSpec
from sandbox.tracecheck import check, check_lines, main
from sandbox.tracesteps import ANSWERS, Line, read
from tests.architecture.sources import CHECKOUT
from tests.model.conftest import Storm
from tests.support.fleet import events_equal_truth
from tests.support.mirror import assert_mirror_equals_postgres
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

ANN = "ann@example.test"
TENANTS, ROUNDS = 12, 8
WORKER = """
from db.racepoints import reach
from tasks.runtime import close_runtime, runtime
runtime()
reach("fence.asked", unit="u", fence=7, title="dentist")
close_runtime(0.0)
"""
RATE = 0.03
"""Of the points that are reached, how many stop their thread."""


def test_the_model_allows_what_the_code_does_in_a_storm(storm: Storm, google: GoogleControl, trace: Path) -> None:
    accounts = google.seed_fleet(FleetSpec(accounts=TENANTS, seed=SeedSpec(events=6, series_every=0)))
    fleet, tenants = storm.fleets[0], []
    for account in accounts:
        tenants.append(fleet.tenant())
        fleet.google(tenants[-1], google, account=account)
    storm.strikes.rate = RATE
    for _ in range(ROUNDS):
        for account in accounts[::2]:
            google.churn(2, account=account.email)
        storm.round()
    storm.settle()

    lines = read([trace])
    reached = {line["point"] for line in lines}
    assert check([trace]) == []
    assert storm.strikes.struck > 10
    assert {point for point in ANSWERS if not point.startswith(("back", "occurrence", "renew", "outbox.renew"))} <= (
        reached
    )
    for tenant, account in zip(tenants, accounts, strict=True):
        events_equal_truth(fleet, tenant, google, account.email, account.email)
    assert_mirror_equals_postgres(fleet.database, storm.mirror)


def ask(thread: int, point: str, **facts: Any) -> Line:
    return {"point": point, "pid": 1, "thread": thread, "t": 0.0, **facts}


def called(thread: int, asked: str, answered: str, t: float = 0.0, **facts: Any) -> list[Line]:
    """A question and its answer with nothing between them."""
    return [ask(thread, point, **facts) | {"t": t} for point in (asked, answered)]


def claim(fence: int, *, t: float = 0.0, lease: float = 5.0) -> list[Line]:
    units = [{"unit_id": "u", "tenant_id": "t", "fence": fence}]
    return called(1, "claim.asked", "claim.committed", t, units=units, lease=lease)


def start(fence: int, *, t: float = 0.0) -> list[Line]:
    return called(2, "start.asked", "start.committed", t, units=[["u", fence]], started=[{"unit_id": "u"}], lease=5.0)


def commit(fence: int, *, thread: int = 3) -> list[Line]:
    taken = called(thread, "fence.asked", "fence.answered", unit="u", fence=fence, taken=True, lease=5.0)
    return taken + called(thread, "changed.written", "changed.committed", unit="u", fence=fence)


def quiet(fence: int) -> list[Line]:
    units = [{"unit_id": "u", "tenant_id": "t", "fence": fence}]
    return called(3, "quiet.asked", "quiet.committed", units=units, ended=["u"])


def leased(mark: str, *, thread: int = 4) -> list[Line]:
    return called(thread, "outbox.asked", "outbox.leased", held=[{"tenant_id": "t", "lease_until": mark}], lease=6.0)


def released(mark: str) -> list[Line]:
    return called(4, "outbox.releasing", "outbox.released", held=[{"tenant_id": "t", "lease_until": mark}])


def sent(read_version: int, sent_version: int, acknowledged: int) -> list[Line]:
    row = {"id": "r", "version": read_version}
    return [
        ask(5, "outbox.rows_read", keys=[{"row_id": "r"}], rows=[row]),
        ask(5, "outbox.sent", rows=[row | {"version": sent_version}]),
        ask(5, "outbox.acknowledged", rows=[{"row_id": "r", "version": acknowledged}]),
    ]


def begun(attempt: int, *, t: float = 0.0) -> list[Line]:
    return called(6, "occurrence.asked", "occurrence.begun", t, task="o", attempt=attempt, won=True, lease=10.0)


def ended(attempt: int) -> list[Line]:
    return called(7, "occurrence.ending", "occurrence.ended", task="o", attempt=attempt, won=True)


LATER = [ask(0, "time.passed")]
ALLOWED = {
    "a run": claim(7) + start(7) + commit(7) + claim(9) + start(9) + quiet(9),
    "a message that is lost, and its lease waited for": claim(7) + claim(9, t=6.0) + start(9, t=6.0) + commit(9),
    "a lease that was set back": claim(7) + start(7) + LATER + claim(9) + start(9) + commit(9),
    "a commit whose answer nobody got": claim(7) + start(7) + commit(7)[:-1] + claim(9, t=1.0) + start(9) + quiet(9),
    "steps at the same time": [*claim(7), claim(9)[0], *start(7), *commit(7), claim(9)[1], *start(9), *quiet(9)],
    "senders one after the other": leased("a") + released("a") + leased("b", thread=8) + released("b"),
    "a row sent and forgotten": sent(5, 5, 5),
    "an occurrence whose first worker was lost": begun(1) + begun(2, t=11.0) + ended(2),
}
REFUSED = {
    "two commits with their fences reordered": (
        claim(7) + start(7) + LATER + claim(9) + start(9) + commit(9) + commit(7, thread=8)
    ),
    "a commit under a fence that is gone": claim(7) + start(7) + LATER + claim(9) + start(9) + commit(7),
    "a second commit of a run": claim(7) + start(7) + commit(7) + commit(7),
    "a start of what nobody claimed": claim(7) + start(8),
    "a message that is run twice": claim(7) + start(7) + start(7) + commit(7),
    "a claim of a unit whose lease is live": claim(7) + start(7) + claim(9, t=2.0) + start(9, t=2.0) + commit(9),
    "a fence that does not grow": claim(7) + start(7) + commit(7) + claim(5) + start(5) + commit(5),
    "two senders at once": leased("a") + leased("b", thread=8) + released("a"),
    "an acknowledgement beyond what was sent": sent(5, 5, 6),
    "an acknowledgement of what was not sent": sent(6, 5, 6),
    "an occurrence that ends twice": begun(1) + begun(2, t=11.0) + ended(1) + ended(2),
    "an occurrence begun under a live lease": begun(1) + begun(2, t=5.0) + ended(2),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_a_trace_that_the_protocol_allows_passes(what: str) -> None:
    assert check_lines(ALLOWED[what]) == []


@pytest.mark.parametrize("what", REFUSED)
def test_a_trace_that_the_protocol_does_not_allow_is_refused(what: str) -> None:
    assert len(check_lines(REFUSED[what])) == 1


def test_a_recorded_run_with_its_fences_exchanged_is_refused(storm: Storm, google: GoogleControl, trace: Path) -> None:
    account = google.create_account(ANN)
    storm.fleets[0].google(storm.fleets[0].tenant(), google, account=account)
    for _ in range(3):
        storm.round()
    recorded = read([trace])
    ends = [line for line in recorded if line["point"] == "quiet.committed"]
    fences = {end["units"][0]["fence"] for end in (ends[0], ends[-1])}

    exchanged = [line | {"units": _exchanged(line["units"], fences)} if "quiet" in line["point"] else line
                 for line in recorded]  # fmt: skip

    assert len(fences) == 2
    assert check_lines(recorded) == []
    assert len(check_lines(exchanged)) == 1


def _exchanged(units: list[Line], fences: set[int]) -> list[Line]:
    return [one | {"fence": next(iter(fences - {one["fence"]}))} if one["fence"] in fences else one for one in units]


def test_a_trace_holds_ids_fences_and_versions_alone(storm: Storm, google: GoogleControl, trace: Path) -> None:
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=4))
    storm.fleets[0].google(storm.fleets[0].tenant("acme"), google, account=account)
    storm.round()
    storm.round()

    text = trace.read_text()
    titles = [row["title"] for row in storm.fleets[0].rows("select title from sync.events where title <> ''")]
    assert "outbox.acknowledged" in text
    assert titles != []
    assert [word for word in (*titles, ANN, "acme") if word in text] == []


def test_a_line_that_a_kill_cut_off_spoils_no_other(trace: Path) -> None:
    lines = [orjson.dumps(line) for line in ALLOWED["a run"]]
    trace.write_bytes(b"\n".join([*lines[:-1], lines[-1][:20]]))

    assert len(read([trace])) == len(lines) - 1
    assert check([trace]) == []


def test_a_worker_process_appends_to_the_file_that_trace_file_names(trace: Path, settings: Settings) -> None:
    keys = ",".join(f"{number}:{base64.b64encode(key).decode()}" for number, key in settings.encryption_keys.items())
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "SUPABASE_URL": settings.supabase_url,
        "SUPABASE_SECRET_KEY": settings.supabase_secret_key.get_secret_value(),
        "ENCRYPTION_KEYS": keys,
        "TRACE_FILE": str(trace),
    }

    done = subprocess.run([sys.executable, "-c", WORKER], cwd=CHECKOUT, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert [(line["point"], line["fence"]) for line in read([trace])] == [("fence.asked", 7)]


def test_an_empty_trace_proves_nothing(trace: Path) -> None:
    trace.touch()

    assert main([str(trace)]) == 1
    assert main([]) == 2
