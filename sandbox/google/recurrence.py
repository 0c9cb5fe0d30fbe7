"""Series: which occurrences a master has, and the instances that stand for them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import cast
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rruleset, rrulestr

from sandbox.google.codec import JsonDict

INSTANCE_ID = re.compile(r"^(?P<master>.+)_(?P<key>\d{8}(?:T\d{6}Z)?)$")
_UNTIL = re.compile(r"UNTIL=(\d{8}(?:T\d{6}Z?)?)")
NOT_INHERITED = frozenset({"recurrence", "id", "recurringEventId", "originalStartTime", "start", "end"})


@dataclass(frozen=True, slots=True)
class Slot:
    """One occurrence: `key` is the suffix of its id, the rest as the API writes it."""

    key: str
    start: JsonDict
    end: JsonDict
    starts_at: datetime


def moment_of(when: JsonDict, fallback_zone: str = "UTC") -> datetime:
    """The instant that a start or end names; an all-day one begins at midnight in the calendar's zone."""
    if "date" in when:
        naive = datetime.fromisoformat(when["date"])
        return naive.replace(tzinfo=ZoneInfo(fallback_zone)).astimezone(UTC)
    moment = datetime.fromisoformat(when["dateTime"])
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(when.get("timeZone") or fallback_zone))
    return moment.astimezone(UTC)


class Series:
    """A master's rule, walked in its own local time so that 09:00 stays 09:00 over a change of the clocks."""

    def __init__(self, master: JsonDict) -> None:
        self._lines: list[str] = master.get("recurrence") or []
        start, end = master["start"], master["end"]
        self._all_day = "date" in start
        self._zone_name: str = start.get("timeZone") or "UTC"
        self._zone = ZoneInfo(self._zone_name)
        self._length = moment_of(end) - moment_of(start)
        if self._all_day:
            self._first = datetime.fromisoformat(start["date"])
        else:
            self._first = self._local(moment_of(start, self._zone_name))

    def slots(self, *, limit: int, until: datetime) -> Iterator[Slot]:
        """At most `limit` occurrences, none that starts at or after `until`."""
        for local in islice(self._rules, limit) if self._lines else ():
            slot = self._slot(local)
            if slot.starts_at >= until:
                return
            yield slot

    def at(self, key: str) -> Slot | None:
        """The occurrence with this key, if the rule has it."""
        local = self._of_key(key)
        if local is None or not self._lines:
            return None
        found = self._rules.after(local, inc=True)
        return self._slot(local) if found == local else None

    def before(self, key: str) -> list[str]:
        """The recurrence that ends just before this occurrence."""
        local = self._of_key(key)
        if local is None:
            raise ValueError("the key does not fit the series")
        if self._all_day:
            until = f"{local - timedelta(days=1):%Y%m%d}"
        else:
            until = f"{self._aware(local) - timedelta(seconds=1):%Y%m%dT%H%M%SZ}"
        return [_with_until(line, until) for line in self._lines]

    @cached_property
    def _rules(self) -> rruleset:
        rules = rruleset()
        if not any(line.startswith("RRULE") for line in self._lines):
            rules.rdate(self._first)
        for line in self._lines:
            name, _, value = line.partition(":")
            if name == "RRULE":
                rules.rrule(cast("rrule", rrulestr(_UNTIL.sub(self._local_until, value), dtstart=self._first)))
            elif name.split(";")[0] in {"EXDATE", "RDATE"}:
                add = rules.exdate if name.startswith("EXDATE") else rules.rdate
                for text in value.split(","):
                    add(self._listed(name, text))
        return rules

    def _local_until(self, found: re.Match[str]) -> str:
        """The rule is walked in naive local time, so its end has to be naive local time too."""
        text = found[1]
        if not text.endswith("Z"):
            return f"UNTIL={text}"
        until = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return f"UNTIL={self._local(until):%Y%m%dT%H%M%S}"

    def _listed(self, name: str, text: str) -> datetime:
        if text.endswith("Z"):
            return self._local(datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC))
        if "T" not in text:
            return datetime.fromisoformat(text)
        zone = re.search(r"TZID=([^;:]+)", name)
        naive = datetime.fromisoformat(text)
        return self._local(naive.replace(tzinfo=ZoneInfo(zone[1]))) if zone else naive

    def _of_key(self, key: str) -> datetime | None:
        if self._all_day != ("T" not in key):
            return None
        try:
            if self._all_day:
                return datetime.fromisoformat(key)
            return self._local(datetime.strptime(key, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC))
        except ValueError:
            return None

    def _slot(self, local: datetime) -> Slot:
        starts_at = self._aware(local)
        if self._all_day:
            day = {"date": f"{local:%Y-%m-%d}"}
            return Slot(f"{local:%Y%m%d}", day, {"date": f"{local + self._length:%Y-%m-%d}"}, starts_at)
        return Slot(
            f"{starts_at:%Y%m%dT%H%M%SZ}",
            self._written(starts_at),
            self._written(starts_at + self._length),
            starts_at,
        )

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(self._zone).replace(tzinfo=None)

    def _aware(self, local: datetime) -> datetime:
        return local.replace(tzinfo=UTC if self._all_day else self._zone).astimezone(UTC)

    def _written(self, moment: datetime) -> JsonDict:
        return {"dateTime": moment.astimezone(self._zone).isoformat(), "timeZone": self._zone_name}


def instance_of(master: JsonDict, slot: Slot) -> JsonDict:
    """The occurrence as an event of its own, as singleEvents=true and a get by instance id show it."""
    shared = {key: value for key, value in master.items() if key not in NOT_INHERITED}
    return shared | {
        "id": f"{master['id']}_{slot.key}",
        "start": slot.start,
        "end": slot.end,
        "recurringEventId": master["id"],
        "originalStartTime": slot.start,
    }


def key_of(original_start: str) -> str:
    """The id suffix for an occurrence named by a date, an instant, an instance id or the suffix itself."""
    if found := INSTANCE_ID.match(original_start):
        return found["key"]
    if "-" not in original_start:
        return original_start
    if "T" not in original_start:
        return original_start.replace("-", "")
    return f"{datetime.fromisoformat(original_start).astimezone(UTC):%Y%m%dT%H%M%SZ}"


def key_of_start(original: JsonDict, zone: str) -> str:
    if "date" in original:
        return key_of(original["date"])
    return f"{moment_of(original, zone):%Y%m%dT%H%M%SZ}"


def _with_until(line: str, until: str) -> str:
    if not line.startswith("RRULE:"):
        return line
    kept = [part for part in line[6:].split(";") if not part.startswith(("UNTIL=", "COUNT="))]
    return "RRULE:" + ";".join([*kept, f"UNTIL={until}"])
