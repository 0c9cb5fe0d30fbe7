"""Intervals of the timetable that are settings."""

from datetime import timedelta

from beat_schedule import OCCURRENCES
from config.timetable import Entry, followed
from tests.support.fleet import make_settings


def test_an_interval_that_is_a_setting_is_the_one_that_was_set() -> None:
    settings = make_settings("postgresql://u:p@h/d", sync_interval="7s")

    entries = followed(OCCURRENCES, settings)

    assert entries["take-in-tasks"].every == timedelta(seconds=7)
    assert {name: entry for name, entry in entries.items() if entry.setting is None} == {
        name: entry for name, entry in OCCURRENCES.items() if entry.setting is None
    }


def test_every_setting_that_an_entry_names_is_one() -> None:
    settings = make_settings("postgresql://u:p@h/d")

    named = {entry.setting for entry in OCCURRENCES.values() if entry.setting is not None}

    assert all(isinstance(getattr(settings, name), timedelta) for name in named)
    assert Entry("a.b", every=timedelta(1), policy="skip").setting is None
