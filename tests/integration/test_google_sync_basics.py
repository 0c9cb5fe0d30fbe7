"""A first look: what is at Google is in Postgres, and stays so."""

from sandbox.google.control import GoogleControl
from sandbox.google.specs import SeedSpec
from tests.support.fleet import Fleet, events_equal_truth

ANN = "ann@example.test"


def test_the_first_sync_stores_everything_that_the_calendar_has(fleet: Fleet, google: GoogleControl) -> None:
    acme = fleet.tenant()
    google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=120, tombstones=5))
    fleet.google(acme, google, account=google.create_account("bob@example.test"))
    assert fleet.run() == 1


def test_a_delta_brings_inserts_changes_and_deletions(fleet: Fleet, google: GoogleControl) -> None:
    acme = fleet.tenant()
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=50))
    fleet.google(acme, google, account=account)
    fleet.run()
    google.churn(40, account=ANN)

    fleet.sync()

    events_equal_truth(fleet, acme, google, ANN, ANN)
    assert fleet.calendar(acme)["state"] == "synced"


def test_a_quiet_sync_changes_no_version_and_sends_nothing(fleet: Fleet, google: GoogleControl) -> None:
    acme = fleet.tenant()
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=20))
    fleet.google(acme, google, account=account)
    fleet.run()
    fleet.clear_outbox()
    before = {key: row["version"] for key, row in fleet.events(acme).items()}

    fleet.sync()

    assert {key: row["version"] for key, row in fleet.events(acme).items()} == before
    assert fleet.outbox(acme) == {}
    assert fleet.unit(acme)["quiet_runs"] == 1
