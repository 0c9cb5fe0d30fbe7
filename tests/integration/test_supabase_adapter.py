"""What the mirror makes of Supabase's answers: which failure it is, and how long to wait."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from db.session import Database
from tenantsync.mirror.supabase import MirrorError, MirrorMisconfigured, MirrorTooLarge, MirrorUnavailable, Supabase
from tests.support.mirror import MirrorSide, closed_for, plant_calendar, plant_events, plant_tenant
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.supabase_proxy import HTML, Trouble

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

FAILURES = {
    "wrong_key": (Trouble(status=401, body='{"message": "Invalid API key"}'), MirrorMisconfigured, "refused"),
    "forbidden": (Trouble(status=403), MirrorMisconfigured, "refused"),
    "grant_missing": (Trouble(status=400, body='{"code": "42501"}'), MirrorMisconfigured, "refused"),
    "function_missing": (Trouble(status=404, body='{"code": "PGRST202"}'), MirrorMisconfigured, "not_migrated"),
    "nothing_there": (Trouble(status=404, body=HTML, content_type="text/html"), MirrorMisconfigured, "not_migrated"),
    "too_large": (Trouble(status=413, body=HTML, content_type="text/html"), MirrorTooLarge, "too_large"),
    "too_many": (Trouble(status=429), MirrorUnavailable, "http_429"),
    "broken": (Trouble(status=500, body='{"code": "SUP"}'), MirrorUnavailable, "http_500"),
    "gateway_html": (Trouble(status=502, body=HTML, content_type="text/html"), MirrorUnavailable, "http_502"),
    "overloaded": (Trouble(status=503, body='{"code": "PGRST002"}'), MirrorUnavailable, "http_503"),
    "gateway_timeout": (Trouble(status=504, body=""), MirrorUnavailable, "http_504"),
    "redirect": (Trouble(status=302, headers={"Location": "/portal"}), MirrorUnavailable, "http_302"),
    "html_200": (Trouble(status=200, body=HTML, content_type="text/html"), MirrorUnavailable, "not_json"),
    "html_200_named_json": (Trouble(status=200, body=HTML), MirrorUnavailable, "not_json"),
    "empty_200": (Trouble(status=200, body=""), MirrorUnavailable, "not_json"),
    "nothing_204": (Trouble(status=204, body=""), MirrorUnavailable, "not_json"),
    "cut_200": (Trouble(status=200, body='{"received": 1'), MirrorUnavailable, "not_json"),
    "list_200": (Trouble(status=200, body="[]"), MirrorUnavailable, "not_json"),
    "other_count_200": (Trouble(status=200, body='{"received": 7, "rejected": []}'), MirrorUnavailable, "not_json"),
    "no_rejected_200": (Trouble(status=200, body='{"received": 0, "rejected": 5}'), MirrorUnavailable, "not_json"),
    "odd_rejected_200": (Trouble(status=200, body='{"received": 0, "rejected": [1]}'), MirrorUnavailable, "not_json"),
    "reset": (Trouble(reset=True), MirrorUnavailable, "unreachable"),
    "answer_lost": (Trouble(lose_answer=True), MirrorUnavailable, "unreachable"),
}

NOT_ROWS = {name: trouble for name, (trouble, *_) in FAILURES.items() if name != "list_200"}


@pytest.mark.parametrize(("trouble", "kind", "reason"), FAILURES.values(), ids=FAILURES)
def test_p103_every_failure_has_a_name_and_none_passes_for_success(
    mirror: MirrorSide, trouble: Trouble, kind: type[MirrorError], reason: str
) -> None:
    mirror.proxy.trouble(trouble)

    with pytest.raises(MirrorError) as failed:
        mirror.supabase.apply("events", [])

    assert (type(failed.value), failed.value.reason) == (kind, reason)


@pytest.mark.parametrize("trouble", NOT_ROWS.values(), ids=NOT_ROWS)
def test_p103_an_audit_that_reads_nonsense_knows_it(mirror: MirrorSide, trouble: Trouble) -> None:
    mirror.proxy.trouble(trouble)

    with pytest.raises(MirrorError):
        list(mirror.supabase.rows("events", tenant_id="00000000-0000-0000-0000-000000000001"))


@pytest.mark.parametrize("trouble", [Trouble(status=204, body=""), Trouble(status=200, body="[]")])
def test_a_purge_that_gets_no_number_knows_it(mirror: MirrorSide, trouble: Trouble) -> None:
    mirror.proxy.trouble(trouble)

    with pytest.raises(MirrorUnavailable):
        mirror.supabase.purge("2026-01-01T00:00:00+00:00")


def test_p103_a_wrong_key_is_named_and_not_repeated(mirror: MirrorSide) -> None:
    supabase = Supabase(mirror.proxy.url, "sb_secret_not_the_one")

    with pytest.raises(MirrorMisconfigured) as refused:
        supabase.check()

    supabase.close()
    assert refused.value.reason == "refused"
    assert "SUPABASE_SECRET_KEY" in str(refused.value)
    assert "not_the_one" not in str(refused.value)


def test_p103_a_publishable_key_is_refused_like_a_wrong_one(mirror: MirrorSide) -> None:
    supabase = Supabase(mirror.proxy.url, mirror.lite.publishable_key)

    with pytest.raises(MirrorMisconfigured, match="SUPABASE_SECRET_KEY"):
        supabase.check()

    supabase.close()


def test_p103_a_supabase_that_cannot_be_reached_is_named_by_its_address(mirror: MirrorSide) -> None:
    supabase = Supabase("http://127.0.0.1:1", mirror.lite.secret_key)

    with pytest.raises(MirrorUnavailable, match=r"127\.0\.0\.1:1") as failed:
        supabase.check()

    supabase.close()
    assert failed.value.reason == "unreachable"
    assert mirror.lite.secret_key not in str(failed.value)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked", [("20", 20.0), ("0", 0.0), ("999999999", 6 * 3600.0)])
def test_p103_what_supabase_asks_for_is_handed_on_within_reason(
    mirror: MirrorSide, status: int, asked: tuple[str, float]
) -> None:
    mirror.proxy.trouble(Trouble(status=status, headers={"Retry-After": asked[0]}))

    with pytest.raises(MirrorUnavailable) as failed:
        mirror.supabase.check()

    assert failed.value.pause == asked[1]


@pytest.mark.parametrize("nonsense", ["soon", "-5", "nan", "", "1e400"])
def test_p103_a_retry_after_that_makes_no_sense_still_closes_supabase_for_a_while(
    database: Database, mirror: MirrorSide, nonsense: str
) -> None:
    plant_calendar(database, plant_tenant(database, "acme"))
    mirror.proxy.trouble(Trouble(status=429, headers={"Retry-After": nonsense}))

    failed = mirror.drain(database)

    assert failed.failure == "http_429"
    assert 0 < closed_for(database) <= 6 * 3600


def test_p103_a_moment_asked_for_as_a_date_is_understood(database: Database, mirror: MirrorSide) -> None:
    plant_calendar(database, plant_tenant(database, "acme"))
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    mirror.proxy.trouble(Trouble(status=429, headers={"Retry-After": later}))

    mirror.drain(database)

    assert 80 < closed_for(database) <= 100


def test_a_tenants_rows_come_in_pages_without_gaps(database: Database, mirror: MirrorSide) -> None:
    acme, other = plant_tenant(database, "acme"), plant_tenant(database, "other")
    plant_events(database, acme, plant_calendar(database, acme), 2_500)
    plant_events(database, other, plant_calendar(database, other), 5)
    mirror.drain(database)

    pages = list(mirror.supabase.rows("events", tenant_id=str(acme.tenant_id)))

    ids = [row["id"] for page in pages for row in page]
    assert ids == sorted(
        name for name, row in mirror.table("calendar_events").items() if row["tenant_id"] == str(acme.tenant_id)
    )
    assert len(ids) == 2_500
