"""Bad habits of CalDAV servers, each seen in the wild, for `CaldavProxy.behave`."""

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring
from xml.sax.saxutils import escape

from tests.support.caldav import CALDAV, DAV
from tests.support.caldav_proxy import Asked, Quirk, Step, Told

Which = Callable[[Asked], bool]

HTML = Told(200, b"<!DOCTYPE html><html><body>Please log in</body></html>", {"Content-Type": "text/html"})
# 160 kB once it is unpacked: small enough that no parser refuses it for its size alone.
BOMB = Told(
    207,
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaaaaaaaaaaaa">'
    + b"".join(f'<!ENTITY {x} "{f"&{y};" * 20}">'.encode() for y, x in zip("abc", "bcd", strict=True))
    + b']><multistatus xmlns="DAV:"><sync-token>&d;</sync-token></multistatus>',
)
NO_SUCH_REPORT = Told(403, b'<error xmlns="DAV:"><supported-report/></error>')


# Which requests


def anything(asked: Asked) -> bool:
    return True


def delta(asked: Asked) -> bool:
    """A sync that sends a token."""
    return bool(asked.token)


def listing(asked: Asked) -> bool:
    """A sync that asks for everything."""
    return asked.token == ""


def syncing(asked: Asked) -> bool:
    return asked.token is not None


def fetching(asked: Asked) -> bool:
    """A request for the texts of resources."""
    return asked.wants_bodies


def on(path: str, method: str | None = None) -> Which:
    return lambda asked: asked.path == path and method in (None, asked.method)


# How answers are changed


def answering(which: Which, told: Told, *, times: int | None = None) -> Quirk:
    """The same answer to every such request, or to the first `times`."""
    left = [times]

    async def quirk(asked: Asked, step: Step) -> Told:
        if not which(asked) or left[0] == 0:
            return await step(asked)
        if left[0] is not None:
            left[0] -= 1
        return told

    return quirk


def rewriting(which: Which, change: Callable[[Told], Told]) -> Quirk:
    async def quirk(asked: Asked, step: Step) -> Told:
        told = await step(asked)
        return change(told) if which(asked) else told

    return quirk


def editing(which: Which, change: Callable[[Element], Any]) -> Quirk:
    """Changes the XML of answers in place."""

    def edit(told: Told) -> Told:
        try:
            root = fromstring(told.body)  # noqa: S314 — our own server wrote it
        except ParseError:
            return told
        change(root)
        return replace(told, body=tostring(root, encoding="utf-8", xml_declaration=True))

    return rewriting(which, edit)


def hanging(which: Which) -> Quirk:
    async def quirk(asked: Asked, step: Step) -> Told:
        if which(asked):
            await asyncio.Event().wait()
        return await step(asked)

    return quirk


def cutting(which: Which) -> Quirk:
    return rewriting(which, lambda told: replace(told, cut=True))


def first_doing(which: Which, act: Callable[[], object]) -> Quirk:
    """Lets something happen at the server just before the first such request is answered."""
    done: list[bool] = []

    async def quirk(asked: Asked, step: Step) -> Told:
        if which(asked) and not done:
            done.append(True)
            await asyncio.to_thread(act)
        return await step(asked)

    return quirk


def redirecting(which: Which, target: Callable[[Asked], str], *, status: int) -> Quirk:
    async def quirk(asked: Asked, step: Step) -> Told:
        return Told(status, b"", {"Location": target(asked)}) if which(asked) else await step(asked)

    return quirk


def below(prefix: str) -> Quirk:
    """What is asked for below this path stands at the root of the real server, and nowhere else."""

    async def quirk(asked: Asked, step: Step) -> Told:
        if not asked.path.startswith(f"{prefix}/"):
            return Told(404, b"<html><body>Nothing here</body></html>", {"Content-Type": "text/html"})
        headers = {**asked.headers, "X-Script-Name": prefix}
        return await step(replace(asked, target=asked.target[len(prefix) :], headers=headers))

    return quirk


# Tokens


def refusing_token(status: int, *, names_it: bool) -> Quirk:
    """Every token is refused, with the element that says why or without."""
    reason = "<valid-sync-token/>" if names_it else "<need-privileges/>"
    return answering(delta, Told(status, f'<?xml version="1.0"?><error xmlns="DAV:">{reason}</error>'.encode()))


async def answering_tokens_with_everything(asked: Asked, step: Step) -> Told:
    """A token is taken for none: the answer lists what is there and names nothing that is gone."""
    if not delta(asked):
        return await step(asked)
    told = await step(_with_token(asked, ""))
    root = fromstring(told.body)  # noqa: S314 — our own server wrote it
    for response in root.findall(f"{DAV}response"):
        if response.find(f"{DAV}propstat") is None:
            root.remove(response)
    return replace(told, body=tostring(root))


def writing_tokens(form: Callable[[int], str]) -> Quirk:
    """Tokens of another kind in front of the server's own; only the exact text is known again."""
    real_of: dict[str, str] = {}
    alias_of: dict[str, str] = {}

    def alias(real: str) -> str:
        if real not in alias_of:
            alias_of[real] = form(len(alias_of) + 1)
            real_of[alias_of[real]] = real
        return alias_of[real]

    def rename(root: Element) -> None:
        for token in root.iter(f"{DAV}sync-token"):
            token.text = alias(token.text or "")

    renaming = editing(anything, rename)

    async def quirk(asked: Asked, step: Step) -> Told:
        if asked.token:
            asked = _with_token(asked, real_of.get(asked.token, f"unknown {asked.token}"))
        return await renaming(asked, step)

    return quirk


def in_portions(size: int) -> Quirk:
    """Sync answers of at most so many responses; a 507 for the collection says that more wait (RFC 6578 §3.6)."""
    waiting: dict[str, tuple[list[Element], str]] = {}

    async def quirk(asked: Asked, step: Step) -> Told:
        if not syncing(asked):
            return await step(asked)
        if asked.token in waiting:
            responses, last_token = waiting[asked.token]
            told = Told(207)
        else:
            told = await step(asked)
            if told.status != 207:
                return told
            root = fromstring(told.body)  # noqa: S314 — our own server wrote it
            responses, last_token = root.findall(f"{DAV}response"), root.findtext(f"{DAV}sync-token", "")
        answer = Element(f"{DAV}multistatus")
        answer.extend(responses[:size])
        token = last_token
        if len(responses) > size:
            token = f"portion:{len(waiting)}"
            waiting[token] = (responses[size:], last_token)
            answer.append(_status(asked.path, "507 Insufficient Storage"))
        SubElement(answer, f"{DAV}sync-token").text = token
        return replace(told, body=tostring(answer))

    return quirk


def _with_token(asked: Asked, token: str) -> Asked:
    body = re.sub(
        rb"(<(?:\w+:)?sync-token)(?:/>|>.*?(</(?:\w+:)?sync-token>))",
        lambda found: found[1] + b">" + escape(token).encode() + (found[2] or found[1].replace(b"<", b"</") + b">"),
        asked.body,
        flags=re.DOTALL,
    )
    return replace(asked, body=body)


# What a server can do


def without_sync() -> Quirk:
    """A server that has never heard of sync-collection."""

    def strip(root: Element) -> None:
        for reports in root.iter(f"{DAV}supported-report-set"):
            for report in reports.findall(f"{DAV}supported-report"):
                if report.find(f"{DAV}report/{DAV}sync-collection") is not None:
                    reports.remove(report)
        _drop(root, f"{DAV}sync-token")

    stripping = editing(anything, strip)

    async def quirk(asked: Asked, step: Step) -> Told:
        return NO_SUCH_REPORT if syncing(asked) else await stripping(asked, step)

    return quirk


def without_ctags() -> Quirk:
    return editing(anything, lambda root: _drop(root, "{http://calendarserver.org/ns/}getctag"))


def without_etags() -> Quirk:
    return editing(anything, lambda root: _drop(root, f"{DAV}getetag"))


def weak_etags() -> Quirk:
    def weaken(root: Element) -> None:
        for etag in root.iter(f"{DAV}getetag"):
            etag.text = f"W/{etag.text}"

    return editing(anything, weaken)


# Resources


def writing_hrefs(form: Callable[[str], str]) -> Quirk:
    """Every href of an answer in another form of the same address."""

    def rewrite(root: Element) -> None:
        for href in root.iter(f"{DAV}href"):
            href.text = form(href.text or "")

    return editing(anything, rewrite)


def listing_the_collection(path: str) -> Quirk:
    """Sync answers also name the collection, as one of its members."""

    def add(root: Element) -> None:
        root.insert(0, _found(path, '"of-the-collection"'))

    return editing(syncing, add)


def naming(href: str, etag: str = '"x"') -> Quirk:
    """Sync answers name one resource more."""
    return editing(syncing, lambda root: root.insert(0, _found(href, etag)))


def reporting_gone(*hrefs: str) -> Quirk:
    """Sync answers report these as deleted, as often as they stand here."""
    return editing(syncing, lambda root: root.extend([_status(href, "404 Not Found") for href in hrefs]))


def hiding(*hrefs: str) -> Quirk:
    """Sync answers say nothing of these."""

    def hide(root: Element) -> None:
        for response in root.findall(f"{DAV}response"):
            if unquote(response.findtext(f"{DAV}href", "")) in hrefs:
                root.remove(response)

    return editing(syncing, hide)


def not_finding(hrefs: Iterable[str], status: str | None = "404 Not Found") -> Quirk:
    """Answers with texts have this status for some resources; None leaves them out altogether."""
    chosen = set(hrefs)

    def miss(root: Element) -> None:
        for response in root.findall(f"{DAV}response"):
            href = response.findtext(f"{DAV}href", "")
            if unquote(href) in chosen:
                root.remove(response)
                if status is not None:
                    root.append(_status(href, status))

    return editing(fetching, miss)


def holding(resource: str, text: str) -> Quirk:
    """This text stands in the resource, whatever the real server has there."""

    def change(root: Element) -> None:
        for response in root.findall(f"{DAV}response"):
            data = response.find(f".//{CALDAV}calendar-data")
            if data is not None and unquote(response.findtext(f"{DAV}href", "")) == resource:
                data.text = text

    return editing(fetching, change)


def holding_bytes(mark: bytes, raw: bytes) -> Quirk:
    """These bytes stand in the answer in place of a mark, whether or not they may stand in XML."""
    return rewriting(fetching, lambda told: replace(told, body=told.body.replace(mark, raw)))


def as_absolute(base: str) -> Callable[[str], str]:
    return lambda href: base.rstrip("/") + urlsplit(href).path


def as_unquoted(href: str) -> str:
    return unquote(href)


def as_quoted_throughout(href: str) -> str:
    """Every character that may be quoted is, in lower-case hex."""
    plain = unquote(href)
    return "".join(
        one if one in "/." or (one.isalnum() and one.isascii()) else quote(one, safe="").lower() for one in plain
    )


def _drop(root: Element, tag: str) -> None:
    for parent in list(root.iter()):
        for child in parent.findall(tag):
            if parent is not root:
                parent.remove(child)


def _found(href: str, etag: str) -> Element:
    response = Element(f"{DAV}response")
    SubElement(response, f"{DAV}href").text = href
    propstat = SubElement(response, f"{DAV}propstat")
    SubElement(SubElement(propstat, f"{DAV}prop"), f"{DAV}getetag").text = etag
    SubElement(propstat, f"{DAV}status").text = "HTTP/1.1 200 OK"
    return response


def _status(href: str, status: str) -> Element:
    response = Element(f"{DAV}response")
    SubElement(response, f"{DAV}href").text = href
    SubElement(response, f"{DAV}status").text = f"HTTP/1.1 {status}"
    return response
