"""calendarList.list: an account's calendars, with deltas of their own."""

from collections.abc import Iterator

from sandbox.google.codec import encode
from sandbox.google.fieldmask import Mask
from sandbox.google.listing import Desk, Mark, list_body, masked_body, natural_page, settle
from sandbox.google.model import ROLES, Account, Calendar
from sandbox.google.params import CalendarListQuery, invalid


def list_calendars(
    account: Account, query: CalendarListQuery, desk: Desk, *, quirks: frozenset[str], mask: Mask | None
) -> bytes:
    if query.min_access_role is not None and query.min_access_role not in ROLES:
        raise invalid("minAccessRole", query.min_access_role)
    after = None
    if query.sync_token is not None:
        after = desk.open_sync(
            query.sync_token,
            owner=account,
            valid_from=account.tokens_valid_from,
            revision=account.list_revision,
        ).revision
    here, ceiling = Mark(0), account.list_revision
    if query.page_token is not None:
        claims = desk.open_page(query.page_token, owner=account, query=query.whole)
        here, ceiling = Mark(claims.position), claims.ceiling
    size = min(query.size, desk.behaviour.page_size or query.size)
    page = natural_page(_entries(account, query, here, after), here, size)
    settle(page, query.page_token, desk, account, query.whole, ceiling, quirks, delta=after is not None)
    if page.next is None and "page_without_tokens" not in quirks:
        page.next_sync_token = desk.issue_sync(account, params=0, revision=ceiling)
    headline = {
        "kind": "calendar#calendarList",
        "etag": f'"p{account.number:08x}{account.list_revision:08x}"',
    }
    return list_body(encode(headline)[:-1], page) if mask is None else masked_body(headline, page, mask)


def _entries(
    account: Account, query: CalendarListQuery, here: Mark, after: int | None
) -> Iterator[tuple[int, list[bytes]]]:
    for position, calendar in enumerate(account.calendars.values()):
        if position < here.position:
            continue
        shown = _shown(calendar, query) if after is None else calendar.list_revision > after
        yield position, [encode(calendar.entry())] if shown else []


def _shown(calendar: Calendar, query: CalendarListQuery) -> bool:
    profile = calendar.profile
    if profile.deleted:
        return bool(query.show_deleted)
    if profile.hidden and not query.show_hidden:
        return False
    wanted = query.min_access_role
    return wanted is None or ROLES.index(profile.access_role) >= ROLES.index(wanted)
