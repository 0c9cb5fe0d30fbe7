"""What a batch may send: the probes of scopes that open again, and a reservation for each calendar's first request."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from yarl import URL

from db.repositories import scopes
from db.repositories.units import StartedUnit
from db.session import Database
from db.states import AccountState
from tenantsync import clock
from tenantsync.calendars import probing
from tenantsync.calendars.probing import CooledScope
from tenantsync.limits.book import Grants
from tenantsync.limits.service import Allowances, Expected, server_of

log = structlog.get_logger(__name__)

NO_PROBES: frozenset[CooledScope] = frozenset()


@dataclass(frozen=True, slots=True)
class Admitted:
    """The units of a batch as they may run now. Calendars that have to wait carry it as their cooldown."""

    units: Sequence[StartedUnit]
    probes: Mapping[UUID, frozenset[CooledScope]]
    grants: Grants


def admit(database: Database, allowances: Allowances, started: Sequence[StartedUnit], *, bulk: bool) -> Admitted:
    """Take probes where scopes are half open, and reserve what the batch is about to send: one statement, as a rule.

    Never raises: without an answer nothing is probed, and each request reserves for itself.
    """
    chosen = probing.candidates(started)
    held: Mapping[UUID, frozenset[CooledScope]] = {}
    units, grants = started, Grants(clock.monotonic(), {}, {})
    try:
        with database.statement() as connection:
            if chosen:
                granted = scopes.probe(connection, set().union(*chosen.values()), hold=probing.HOLD)
                held, useless = probing.allotted(chosen, granted)
                if useless:
                    scopes.give_up_probes(connection, useless)
            units = _held_back(started, held)
            grants = allowances.expect(connection, _expected(units), bulk=bulk)
    except SQLAlchemyError as error:
        log.warning("batch_not_admitted", error=type(error).__name__)
        units = _held_back(started, held)
    return Admitted(units, held, grants)


def _held_back(started: Sequence[StartedUnit], held: Mapping[UUID, frozenset[CooledScope]]) -> Sequence[StartedUnit]:
    chance = random.random()  # noqa: S311 — spreads, guards nothing
    return [probing.hold_back(unit, held.get(unit.unit_id, NO_PROBES), chance) for unit in started]


def _expected(units: Iterable[StartedUnit]) -> Iterable[Expected]:
    for unit in units:
        for calendar in unit.calendars:
            if calendar.cooldown is None and calendar.account_state == AccountState.CONNECTED:
                own_server = calendar.endpoint is not None
                host = server_of(URL(calendar.endpoint, encoded=True)) if own_server and calendar.endpoint else None
                yield Expected(calendar.provider, calendar.identity, host)
