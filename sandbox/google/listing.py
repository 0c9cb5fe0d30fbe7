"""events.list: what a page holds, where the next one begins, and which token ends the list."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sandbox.google.codec import JsonDict, decode, encode
from sandbox.google.errors import ApiError
from sandbox.google.fieldmask import Mask, mask_items
from sandbox.google.model import Account, Calendar, Row
from sandbox.google.params import ListQuery
from sandbox.google.specs import Behaviour
from sandbox.google.tokens import PageClaims, SyncClaims, TokenMint
from sandbox.google.views import View, sort_key


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a list: the row, and which of its items."""

    position: int
    sub: int = 0


@dataclass(slots=True)
class Page:
    items: list[bytes] | None
    here: Mark
    last: Mark | None = None
    next: Mark | None = None
    next_page_token: str | None = None
    next_sync_token: str | None = None


@dataclass(slots=True)
class Desk:
    """Issues and reads the tokens of every list; its serial makes each one distinct and datable."""

    mint: TokenMint
    behaviour: Behaviour
    now_ms: Callable[[], int]
    serial: int = 0
    forgotten: set[int] = field(default_factory=set)

    def open_sync(self, text: str, *, owner: Calendar | Account, valid_from: int, revision: int) -> SyncClaims:
        claims = self.mint.read(text, SyncClaims)
        if claims is None or claims.owner != owner.number:
            if self.behaviour.invalid_token_status == 410:
                raise ApiError(410, "fullSyncRequired")
            raise ApiError(400, "invalid")
        ttl = self.behaviour.sync_token_ttl_s
        aged = ttl is not None and self.now_ms() - claims.issued_ms > ttl * 1000
        if aged or claims.serial < valid_from or claims.serial in self.forgotten or claims.revision > revision:
            raise ApiError(410, "fullSyncRequired")
        return claims

    def issue_sync(self, owner: Calendar | Account, *, params: int, revision: int) -> str:
        known = owner.quiet_tokens.get(params)
        if not self.behaviour.new_token_when_quiet and known is not None and known[0] == revision:
            return known[1]
        self.serial += 1
        claims = SyncClaims(owner.number, params, revision, self.now_ms(), self.serial)
        text = self.mint.write(claims, length=self.behaviour.sync_token_length)
        if not self.behaviour.new_token_when_quiet:
            owner.quiet_tokens[params] = (revision, text)
        return text

    def forget(self, text: str) -> bool:
        claims = self.mint.read(text, SyncClaims)
        if claims is not None:
            self.forgotten.add(claims.serial)
        return claims is not None

    def expire_all(self, owner: Calendar | Account) -> None:
        owner.tokens_valid_from = self.serial + 1
        owner.quiet_tokens.clear()

    def open_page(self, text: str, *, owner: Calendar | Account, query: int) -> PageClaims:
        claims = self.mint.read(text, PageClaims)
        if claims is None or claims.owner != owner.number or claims.query != query:
            raise ApiError(400, "invalid", "Invalid page token value.", location="pageToken")
        return claims

    def issue_page(self, owner: Calendar | Account, *, query: int, mark: Mark, ceiling: int) -> str:
        self.serial += 1
        claims = PageClaims(owner.number, query, mark.position, mark.sub, ceiling, self.serial)
        return self.mint.write(claims)


def list_events(
    calendar: Calendar, query: ListQuery, desk: Desk, *, quirks: frozenset[str], mask: Mask | None
) -> bytes:
    behaviour, now_ms = desk.behaviour, desk.now_ms()
    if query.updated_min is not None and query.updated_min < now_ms - behaviour.updated_min_days * 86_400_000:
        raise ApiError(410, "updatedMinTooLongAgo")
    after = _start_of_delta(calendar, query, desk)
    here, ceiling = _place(calendar, query, desk, after)
    view = View(calendar, query, behaviour, now_ms=now_ms)
    size = min(query.size, behaviour.page_size or query.size)
    if query.order_by is not None:
        page = _sorted_page(calendar, query, view, here, size)
    else:
        page = _natural_page(_rows(calendar, after, here, ceiling), view, here, size)
    settle(page, query.page_token, desk, calendar, query.whole, ceiling, quirks, delta=after is not None)
    ends = page.next is None and (behaviour.token_for_filtered_lists or not query.filtered)
    too_early = "sync_token_on_first_page" in quirks and query.page_token is None
    if (ends or too_early) and "page_without_tokens" not in quirks:
        page.next_sync_token = desk.issue_sync(calendar, params=query.fixed, revision=ceiling)
    return _written(calendar, page, mask)


def settle(
    page: Page,
    used: str | None,
    desk: Desk,
    owner: Calendar | Account,
    query: int,
    ceiling: int,
    quirks: frozenset[str],
    *,
    delta: bool,
) -> None:
    """Bends the page as the scripted quirks ask, without losing an item, and writes its page token."""
    if "empty_full_list" in quirks and not delta:
        page.items, page.next = [], None
    if "empty_page_with_token" in quirks:
        page.items, page.next = [], page.here
    if "page_without_items" in quirks:
        page.next = page.here if page.items else page.next
        page.items = None
    if "duplicate_item_over_pages" in quirks and page.next is not None and len(page.items or ()) > 1:
        page.next = page.last
    if "same_page_token_forever" in quirks:
        page.next = page.next or page.here
        page.next_page_token = used
    if "page_without_tokens" in quirks:
        page.next_page_token = None
    elif page.next is not None and page.next_page_token is None:
        page.next_page_token = desk.issue_page(owner, query=query, mark=page.next, ceiling=ceiling)


def natural_page(rows: Iterator[tuple[int, list[bytes]]], here: Mark, size: int) -> Page:
    items: list[bytes] = []
    page = Page(items, here)
    for position, views in rows:
        first = here.sub if position == here.position else 0
        for sub in range(first, len(views)):
            if len(items) == size:
                page.next = Mark(position, sub)
                return page
            page.last = Mark(position, sub)
            items.append(views[sub])
    return page


def tail_of(page: Page) -> JsonDict:
    tail: JsonDict = {}
    if page.next_page_token is not None:
        tail["nextPageToken"] = page.next_page_token
    if page.next_sync_token is not None:
        tail["nextSyncToken"] = page.next_sync_token
    return tail


def list_body(head: bytes, page: Page) -> bytes:
    """`head` is an object without its closing brace."""
    items = b"" if page.items is None else b',"items":[' + b",".join(page.items) + b"]"
    tail = encode(tail_of(page))
    return head + items + (b"}" if tail == b"{}" else b"," + tail[1:])


def masked_body(headline: JsonDict, page: Page, mask: Mask) -> bytes:
    kept, items = mask_items(mask, headline | tail_of(page), page.items)
    head = encode(kept)
    if items is None:
        return head
    opening = b"{" if head == b"{}" else head[:-1] + b","
    return opening + b'"items":[' + b",".join(items) + b"]}"


def _start_of_delta(calendar: Calendar, query: ListQuery, desk: Desk) -> int | None:
    if query.sync_token is None:
        return None
    claims = desk.open_sync(
        query.sync_token, owner=calendar, valid_from=calendar.tokens_valid_from, revision=calendar.revision
    )
    if claims.params != query.fixed and desk.behaviour.changed_params == "refuse":
        message = "The request differs from the list request that the sync token comes from."
        raise ApiError(400, "invalidParameter", message, location="syncToken")
    return claims.revision


def _place(calendar: Calendar, query: ListQuery, desk: Desk, after: int | None) -> tuple[Mark, int]:
    if query.page_token is None:
        return Mark(0 if after is None or query.order_by else after + 1), calendar.revision
    claims = desk.open_page(query.page_token, owner=calendar, query=query.whole)
    return Mark(claims.position, claims.sub), claims.ceiling


def _rows(calendar: Calendar, after: int | None, here: Mark, ceiling: int) -> Iterator[tuple[int, Row]]:
    if after is None:
        for row in calendar.from_ordinal(here.position):
            yield row.ordinal, row
    else:
        for row in calendar.changes(after=here.position - 1, upto=ceiling):
            yield row.revision, row


def _natural_page(rows: Iterator[tuple[int, Row]], view: View, here: Mark, size: int) -> Page:
    return natural_page(((position, view.render(row)) for position, row in rows), here, size)


def _sorted_page(calendar: Calendar, query: ListQuery, view: View, here: Mark, size: int) -> Page:
    zone, order_by = calendar.profile.time_zone, query.order_by or "updated"
    items = [item for row in calendar.from_ordinal(0) for item in view.render(row)]
    items.sort(key=lambda item: sort_key(order_by, decode(item), zone))
    chunk = items[here.position : here.position + size]
    end = here.position + len(chunk)
    return Page(chunk, here, Mark(end - 1), Mark(end) if end < len(items) else None)


def _written(calendar: Calendar, page: Page, mask: Mask | None) -> bytes:
    if mask is None:
        return list_body(calendar.head(), page)
    return masked_body(calendar.headline(), page, mask)
