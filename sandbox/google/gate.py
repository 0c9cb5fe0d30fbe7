"""What every request passes: the log, faults, latency, the token check, quotas, and the way out."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from aiohttp import web

from sandbox.google.api import Call, Operation, Reply, refused
from sandbox.google.errors import ApiError, html_page
from sandbox.google.faults import Scene, Verdict
from sandbox.google.model import Account
from sandbox.google.oauth import refresh
from sandbox.google.params import Pairs
from sandbox.google.specs import LoggedRequest
from sandbox.google.store import Store
from sandbox.google.wire import Sent, scripted_reply, send

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HIDDEN = frozenset({"access_token", "oauth_token", "key"})


@dataclass(slots=True)
class Visit:
    """One request on its way through."""

    request: web.Request
    endpoint: str
    bearer: str | None
    account: Account | None
    calendar_id: str | None
    pairs: Pairs
    body: bytes


class Gate:
    def __init__(self, store: Store, stopping: asyncio.Event) -> None:
        self._store = store
        self._stopping = stopping

    def api(self, endpoint: str, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            visit = self._visit(request, endpoint, await _body(request))
            return await self._serve(visit, lambda verdict: self._perform(visit, operation, verdict))

        return handle

    async def token(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        form = dict(parse_qsl(body.decode(errors="replace")))
        visit = self._visit(request, "token", body)
        visit.account = self._store.refresh_tokens.get(form.get("refresh_token", ""))
        return await self._serve(visit, lambda _: refresh(self._store, form))

    async def other(self, request: web.Request) -> web.StreamResponse:
        """Logged like the rest: it tells whether a redirect was followed, and with a token or without."""
        page = Reply(404, html_page(404, "That’s an error."), "text/html; charset=UTF-8")
        return await self._serve(self._visit(request, "other", b""), lambda _: page)

    def _visit(self, request: web.Request, endpoint: str, body: bytes) -> Visit:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        bearer = token if scheme.lower() == "bearer" and token else None
        account = self._store.owner_of(bearer)
        calendar_id = request.match_info.get("calendar")
        if calendar_id == "primary" and account is not None:
            calendar_id = account.email
        pairs: dict[str, list[str]] = {}
        for key, value in request.query.items():
            pairs.setdefault(key, []).append(value)
        return Visit(request, endpoint, bearer, account, calendar_id, pairs, body)

    async def _serve(self, visit: Visit, answer: Callable[[Verdict], Reply]) -> web.StreamResponse:
        store, begun, sent = self._store, time.perf_counter(), Sent()
        entry = self._entry(visit)
        tallies = store.begin(entry)
        try:
            verdict = store.faults.judge(_scene(visit))
            entry.faults = list(verdict.names)
            delay = store.behaviour.latency_ms / 1000 + verdict.slow_s
            if delay > 0:
                await asyncio.sleep(delay)
            if verdict.wire is not None and verdict.wire.kind == "hang":
                await self._stopping.wait()
            reply = self._scripted(visit, verdict) or answer(verdict)
            return await send(visit.request, reply, verdict.wire, sent, gzip=store.behaviour.gzip)
        finally:
            entry.status, entry.bytes_sent = sent.status, sent.bytes
            entry.duration_ms = round((time.perf_counter() - begun) * 1000, 3)
            store.end(entry, tallies)

    def _scripted(self, visit: Visit, verdict: Verdict) -> Reply | None:
        if verdict.expires_tokens and visit.account is not None:
            calendar = visit.account.find(visit.calendar_id or "")
            self._store.desk.expire_all(calendar or visit.account)
        if verdict.wire is None:
            return None
        return scripted_reply(verdict.wire, visit.endpoint, self._store.clock.now_ms())

    def _perform(self, visit: Visit, operation: Operation, verdict: Verdict) -> Reply:
        store, headers = self._store, visit.request.headers
        try:
            account = store.authorize(visit.bearer)
            store.quotas.charge(account.email, store.behaviour.quota, store.clock.now_ms())
            call = Call(
                store,
                account,
                visit.calendar_id or "",
                visit.request.match_info.get("event", ""),
                visit.pairs,
                visit.body,
                headers.get("If-Match"),
                headers.get("If-None-Match"),
                verdict.quirks,
            )
            return operation(call)
        except ApiError as error:
            return refused(error)

    def _entry(self, visit: Visit) -> LoggedRequest:
        request = visit.request
        query = {key: "…" if key in _HIDDEN else ",".join(value) for key, value in visit.pairs.items()}
        return LoggedRequest(
            seq=self._store.next_seq(),
            time_ms=self._store.clock.now_ms(),
            method=request.method,
            path=request.path,
            query=query,
            endpoint=visit.endpoint,
            account=visit.account.email if visit.account is not None else None,
            calendar=visit.calendar_id,
            bearer=visit.bearer is not None,
        )


def _scene(visit: Visit) -> Scene:
    account = visit.account.email if visit.account is not None else None
    return Scene(
        visit.endpoint,
        account,
        visit.calendar_id,
        "delta" if "syncToken" in visit.pairs else "full",
        "later" if "pageToken" in visit.pairs else "first",
    )


async def _body(request: web.Request) -> bytes:
    return await request.read() if request.can_read_body else b""
