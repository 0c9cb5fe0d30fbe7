"""Changes to a calendar's events, each leaving the change log as Google's would look to a client."""

from dataclasses import dataclass
from random import Random

from sandbox.google import bodies
from sandbox.google.clock import Clock
from sandbox.google.codec import JsonDict, etag_of
from sandbox.google.errors import ApiError
from sandbox.google.model import Calendar, Row
from sandbox.google.recurrence import INSTANCE_ID, Series, Slot, instance_of, key_of, key_of_start
from sandbox.google.specs import Behaviour

BROKEN = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(slots=True)
class Target:
    """An event to act on: a row, or an occurrence that has no row of its own yet."""

    resource: JsonDict
    row: Row | None
    master: str | None

    @property
    def gone(self) -> bool:
        return self.row is not None and (self.row.cancelled or self.row.orphaned)


class Editor:
    def __init__(self, *, clock: Clock, rng: Random, behaviour: Behaviour) -> None:
        self._clock = clock
        self._rng = rng
        self._behaviour = behaviour

    def find(self, calendar: Calendar, event_id: str) -> Target:
        """A deleted event is found too: the API goes on answering a get for it."""
        row = calendar.rows.get(event_id)
        if row is not None:
            resource = row.resource()
            if row.orphaned:
                resource["status"] = "cancelled"
            return Target(resource, row, row.master)
        master, slot = self._occurrence(calendar, event_id)
        if master is None or slot is None:
            raise ApiError(404, "notFound")
        return Target(instance_of(master, slot), None, master["id"])

    def insert(self, calendar: Calendar, body: JsonDict) -> JsonDict:
        event_id = body.get("id")
        if event_id is None:
            event_id = bodies.new_id(self._rng)
        else:
            bodies.check_id(event_id)
        if event_id in calendar.rows:
            raise ApiError(409, "duplicate")
        stamp = self._clock.stamp()
        written = bodies.writable(body)
        resource = bodies.fresh(event_id, written, owner=calendar.owner, stamp=stamp, ical_uid=body.get("iCalUID"))
        bodies.check(resource)
        calendar.put(resource, stamp=stamp)
        return resource

    def patch(self, calendar: Calendar, event_id: str, body: JsonDict, *, if_match: str | None = None) -> JsonDict:
        target = self._matching(calendar, event_id, if_match)
        return self._write(calendar, target, bodies.merge(target.resource, bodies.writable(body)))

    def update(self, calendar: Calendar, event_id: str, body: JsonDict, *, if_match: str | None = None) -> JsonDict:
        target = self._matching(calendar, event_id, if_match)
        kept = {key: value for key, value in target.resource.items() if key not in bodies.WRITABLE}
        defaults = {"status": "confirmed", "sequence": target.resource.get("sequence", 0)}
        return self._write(calendar, target, kept | {"eventType": "default"} | defaults | bodies.writable(body))

    def delete(self, calendar: Calendar, event_id: str, *, if_match: str | None = None) -> None:
        target = self._matching(calendar, event_id, if_match)
        if target.gone:
            raise ApiError(410, "deleted")
        self._cancel(calendar, target.resource, target.master)
        if target.master is None:
            self._orphan_exceptions(calendar, event_id)

    def restore(self, calendar: Calendar, event_id: str) -> JsonDict:
        return self.patch(calendar, event_id, {"status": "confirmed"})

    def move(self, source: Calendar, event_id: str, destination: Calendar) -> JsonDict:
        """A bare stub stays behind, which nobody here can restore; the series' exceptions go along."""
        target = self.find(source, event_id)
        if target.master is not None:
            raise ApiError(400, "cannotChangeOrganizerOfInstance")
        if target.gone:
            raise ApiError(410, "deleted")
        if destination.living(event_id):
            raise ApiError(409, "duplicate")
        exceptions = [row for row in source.exceptions_of(event_id) if not row.orphaned]
        self._cancel(source, target.resource | {"organizer": {"email": destination.id}}, None)
        self._orphan_exceptions(source, event_id)
        moved = target.resource | {"organizer": {"email": destination.id, "self": True}}
        destination.put(moved, stamp=self._clock.stamp())
        for row in exceptions:
            destination.put(row.resource(), stamp=self._clock.stamp(), master=event_id)
        return moved

    def cancel_instance(self, calendar: Calendar, master_id: str, original_start: str) -> None:
        self.delete(calendar, f"{master_id}_{key_of(original_start)}")

    def override_instance(self, calendar: Calendar, master_id: str, original_start: str, changes: JsonDict) -> JsonDict:
        """`originalStartTime` may be given too: Google may write it in another zone than the series."""
        target = self.find(calendar, f"{master_id}_{key_of(original_start)}")
        if "originalStartTime" in changes:
            target.resource["originalStartTime"] = changes["originalStartTime"]
        return self._write(calendar, target, bodies.merge(target.resource, bodies.writable(changes)), revive=True)

    def split(self, calendar: Calendar, master_id: str, original_start: str, changes: JsonDict) -> JsonDict:
        """ "This and following": the old series ends, a new one starts, later exceptions are reset."""
        target = self.find(calendar, master_id)
        key = key_of(original_start)
        master, slot = self._occurrence(calendar, f"{master_id}_{key}")
        if master is None or slot is None:
            raise ApiError(404, "notFound")
        before = Series(master).before(key)
        self._write(calendar, target, master | {"recurrence": before})
        stamp = self._clock.stamp()
        tail = bodies.writable(master) | {"start": slot.start, "end": slot.end} | bodies.writable(changes)
        new_id = f"{master_id.partition('_R')[0]}_R{key.rstrip('Z')}"
        resource = bodies.fresh(new_id, tail, owner=calendar.owner, stamp=stamp, ical_uid=f"{new_id}@google.com")
        bodies.check(resource)
        calendar.put(resource, stamp=stamp)
        return resource

    def _matching(self, calendar: Calendar, event_id: str, if_match: str | None) -> Target:
        target = self.find(calendar, event_id)
        if if_match not in (None, "*", target.resource.get("etag")):
            raise ApiError(412, "conditionNotMet")
        return target

    def _write(self, calendar: Calendar, target: Target, resource: JsonDict, *, revive: bool = False) -> JsonDict:
        old = target.resource
        if revive:
            resource["status"] = "confirmed"
        if target.gone and resource["status"] == "cancelled":
            raise ApiError(410, "deleted")
        if target.row is not None and target.row.orphaned:
            raise ApiError(410, "deleted")
        if target.gone and not old.get("organizer", {}).get("self"):
            raise ApiError(403, "forbiddenForNonOrganizer")
        if resource["status"] == "cancelled":
            self.delete(calendar, resource["id"])
            return self.find(calendar, resource["id"]).resource
        bodies.check(resource)
        changed = bodies.changed(old, resource)
        if not changed and target.row is not None:
            return old
        if changed & set(bodies.TIMES):
            resource["sequence"] = max(old.get("sequence", 0) + 1, resource.get("sequence", 0))
        # Google does not count a change of reminders as an update, so `updated` cannot guard against it.
        quiet = changed == {"reminders"} and target.row is not None
        calendar.put(resource, stamp=self._clock.stamp(), master=target.master, keep_updated=quiet)
        if target.master is None:
            self._settle_exceptions(calendar, resource, was_gone=target.gone, changed=changed)
        return resource

    def _cancel(self, calendar: Calendar, resource: JsonDict, master: str | None) -> None:
        resource["status"] = "cancelled"
        calendar.put(resource, stamp=self._clock.stamp(), master=master)

    def _settle_exceptions(self, calendar: Calendar, master: JsonDict, *, was_gone: bool, changed: set[str]) -> None:
        """After a master came back, its exceptions do too; after its times changed, only those that fit.

        Both are written anew, so that a delta that skips over the deletion still tells of them.
        """
        if was_gone:
            for row in calendar.exceptions_of(master["id"]):
                row.orphaned = False
                calendar.put(row.resource(), stamp=self._clock.stamp(), master=row.master)
        if changed & {"start", "recurrence"}:
            self._cancel_stale(calendar, master)

    def _cancel_stale(self, calendar: Calendar, master: JsonDict) -> None:
        live = [row for row in calendar.exceptions_of(master["id"]) if not row.cancelled]
        series = Series(master) if live else None
        for row in live:
            resource = row.resource()
            key = key_of_start(resource["originalStartTime"], calendar.profile.time_zone)
            if series is None or series.at(key) is None:
                self._cancel(calendar, resource, row.master)

    def _orphan_exceptions(self, calendar: Calendar, master_id: str) -> None:
        """They go with their master; whether a delta lists them as well is not known, so it is a setting."""
        for row in calendar.exceptions_of(master_id):
            listed = self._behaviour.list_exceptions_of_deleted_master and not row.cancelled
            gone = self._listed_orphan(calendar, row) if listed else row
            gone.orphaned = True

    def _listed_orphan(self, calendar: Calendar, row: Row) -> Row:
        stamp = self._clock.stamp()
        bare = bodies.cancelled_stub(row.resource(), etag_of(stamp))
        return calendar.put_encoded(row.id, row.body, stamp=stamp, master=row.master, bare=bare)

    def _occurrence(self, calendar: Calendar, event_id: str) -> tuple[JsonDict | None, Slot | None]:
        found = INSTANCE_ID.match(event_id)
        if found is None or not calendar.living(found["master"]):
            return None, None
        master = calendar.rows[found["master"]].resource()
        try:
            return master, Series(master).at(found["key"])
        except BROKEN:
            return None, None
