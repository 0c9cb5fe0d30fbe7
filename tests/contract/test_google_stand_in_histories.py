"""Whatever happens to a calendar, full list and deltas tell a careful reader all of it."""

from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sandbox.google.control import ControlRefusedError, GoogleControl
from sandbox.google.specs import Edit
from tests.contract.google_schema import ANN, MEETING, WEEKLY, CheckedClient, Reader

pytest_plugins = ["tests.contract.google_fixtures"]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "insert",
                "series",
                "patch",
                "reschedule",
                "delete",
                "restore",
                "cancel",
                "override",
                "split",
                "move",
                "read",
                "read",
                "expire",
            ]
        ),
        st.integers(0, 7),
        st.integers(0, 5),
    ),
    max_size=25,
)
HOME, AWAY = "home", "away"


class World:
    """Plays a drawn history on two calendars; what is impossible at a step is passed over."""

    def __init__(self, google: GoogleControl, account: str) -> None:
        self.google = google
        self.account = account
        self.ids: list[tuple[str, str]] = []

    def play(self, step: str, which: int, day: int) -> None:
        calendar, event = self.ids[which % len(self.ids)] if self.ids else (HOME, "none0")
        original = f"2026-12-{1 + 7 * day:02d}T10:00:00+01:00"
        edits: dict[str, dict[str, Any]] = {
            "insert": {"kind": "insert", "calendar": HOME, "body": MEETING},
            "series": {"kind": "insert", "calendar": HOME, "body": WEEKLY},
            "patch": {"kind": "patch", "body": {"summary": f"title {which}{day}"}},
            "reschedule": {"kind": "patch", "body": {"recurrence": [f"RRULE:FREQ=WEEKLY;COUNT={day + 1}"]}},
            "delete": {"kind": "delete"},
            "restore": {"kind": "restore"},
            "cancel": {"kind": "cancel_instance", "original_start": original},
            "override": {
                "kind": "override_instance",
                "original_start": original,
                "body": {"summary": f"x{which}"},
            },
            "split": {"kind": "split", "original_start": original},
            "move": {"kind": "move", "destination": AWAY if calendar == HOME else HOME},
        }
        edit = Edit(**{"account": self.account, "calendar": calendar, "event": event} | edits[step])
        try:
            (done,) = self.google.apply([edit])
        except ControlRefusedError:
            return
        if step in {"insert", "series", "split", "move"} and done is not None:
            self.ids.append((edit.destination or edit.calendar, done["id"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@example(steps=[("series", 0, 0), ("cancel", 0, 0), ("delete", 0, 0)], size=1, listed=True)
@given(steps=STEPS, size=st.integers(1, 4), listed=st.booleans())
def test_a_reader_of_full_list_and_deltas_ends_with_the_truth_whatever_happened(
    google: GoogleControl, steps: list[tuple[str, int, int]], size: int, listed: bool
) -> None:
    google.reset(seed=1)
    google.configure(list_exceptions_of_deleted_master=listed)
    info = google.create_account(ANN)
    google.create_calendar(ANN, HOME)
    google.create_calendar(ANN, AWAY)
    client = CheckedClient(google.api_endpoint, info.access_token)
    readers = {name: Reader(client, name, size) for name in (HOME, AWAY)}
    world = World(google, ANN)

    for step, which, day in steps:
        if step == "read":
            readers[HOME if which % 2 else AWAY].read_page()
        elif step == "expire":
            google.expire_sync_tokens(calendar=HOME)
        else:
            world.play(step, which, day)
    for reader in readers.values():
        reader.catch_up()
        reader.catch_up()
    client.close()

    for name, reader in readers.items():
        assert reader.state == {item["id"]: item for item in google.truth(ANN, name)}
