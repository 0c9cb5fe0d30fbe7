"""CalDAV's XML: the requests we send and the multistatus answers (RFC 4918 §14, RFC 4791, RFC 6578)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from urllib.parse import quote, unquote, urljoin, urlsplit
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from tenantsync.errors import Transient

DAV = "{DAV:}"
CALDAV = "{urn:ietf:params:xml:ns:caldav}"
CALENDARSERVER = "{http://calendarserver.org/ns/}"
_NAMESPACES = 'xmlns:d="DAV:" xmlns:c="urn:ietf:params:xml:ns:caldav" xmlns:s="http://calendarserver.org/ns/"'
_PREFIXES = {DAV: "d:", CALDAV: "c:", CALENDARSERVER: "s:"}
SAFE_IN_PATH = "/~!$&'()*+,;=:@-._"


@dataclass(slots=True)
class Response:
    """One `response` of a multistatus: whose, with which status, and the properties that were found."""

    href: str
    status: int | None = None
    properties: dict[str, Element] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        element = self.properties.get(name)
        return None if element is None or element.text is None else element.text.strip()


@dataclass(slots=True)
class Multistatus:
    responses: list[Response]
    sync_token: str | None


def propfind(*names: str) -> bytes:
    """A PROPFIND body that asks for these properties, each given as `{namespace}name`."""
    return f'<?xml version="1.0" encoding="utf-8"?><d:propfind {_NAMESPACES}>{_prop(names)}</d:propfind>'.encode()


def sync_collection(token: str) -> bytes:
    """A sync-collection REPORT (RFC 6578 §3.2), never with a limit: servers exist that then lose items."""
    return (
        f'<?xml version="1.0" encoding="utf-8"?><d:sync-collection {_NAMESPACES}>'
        f"<d:sync-token>{escape(token)}</d:sync-token><d:sync-level>1</d:sync-level>"
        f"{_prop([DAV + 'getetag'])}</d:sync-collection>"
    ).encode()


def multiget(hrefs: Sequence[str]) -> bytes:
    """A calendar-multiget REPORT (RFC 4791 §7.9) for etags and bodies."""
    listed = "".join(f"<d:href>{escape(href)}</d:href>" for href in hrefs)
    wanted = _prop([DAV + "getetag", CALDAV + "calendar-data"])
    return (
        f'<?xml version="1.0" encoding="utf-8"?><c:calendar-multiget {_NAMESPACES}>'
        f"{wanted}{listed}</c:calendar-multiget>"
    ).encode()


def all_events() -> bytes:
    """A calendar-query REPORT (RFC 4791 §7.8) for every VEVENT: what the audit asks, and the sync never."""
    wanted = _prop([DAV + "getetag", CALDAV + "calendar-data"])
    return (
        f'<?xml version="1.0" encoding="utf-8"?><c:calendar-query {_NAMESPACES}>{wanted}'
        '<c:filter><c:comp-filter name="VCALENDAR"><c:comp-filter name="VEVENT"/></c:comp-filter></c:filter>'
        "</c:calendar-query>"
    ).encode()


def _prop(names: Sequence[str]) -> str:
    inner = "".join(f"<{_PREFIXES[name[: name.index('}') + 1]]}{name[name.index('}') + 1 :]}/>" for name in names)
    return f"<d:prop>{inner}</d:prop>"


def parse(body: bytes) -> Multistatus:
    """A multistatus answer, read element by element so that a large one is never a tree in memory.

    Raises Transient for anything that is not a whole multistatus, DTDs and entities included.
    """
    responses: list[Response] = []
    token: str | None = None
    root: Element | None = None
    try:
        for event, element in ElementTree.iterparse(BytesIO(body), events=("start", "end"), forbid_dtd=True):
            if root is None:
                root = element
                if root.tag != DAV + "multistatus":
                    raise Transient("not_multistatus", "the answer is XML, but no multistatus")
            elif event == "end" and element.tag == DAV + "response":
                responses.append(_response(element))
                root.clear()
            elif event == "end" and element.tag == DAV + "sync-token":
                token = (element.text or "").strip()
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise Transient("not_xml", f"the answer is not whole XML ({type(error).__name__})") from None
    if root is None:
        raise Transient("not_xml", "the answer is empty")
    return Multistatus(responses, token)


def _response(element: Element) -> Response:
    response = Response((element.findtext(DAV + "href") or "").strip(), _status(element))
    for propstat in element.iter(DAV + "propstat"):
        if _status(propstat) == 200:
            for prop in propstat.iter(DAV + "prop"):
                response.properties.update({child.tag: child for child in prop})
    return response


def _status(element: Element) -> int | None:
    parts = (element.findtext(DAV + "status") or "").split()
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None


def names_condition(body: bytes, condition: str) -> bool:
    """Whether an error body names a precondition such as `{DAV:}valid-sync-token` (RFC 4918 §16)."""
    try:
        return any(element.tag == condition for element in ElementTree.fromstring(body, forbid_dtd=True).iter())
    except (ParseError, DefusedXmlException, LookupError, ValueError):
        return False


def children(element: Element | None) -> Iterator[Element]:
    if element is not None:
        yield from element


def path_of(href: str, base: str, *, any_origin: bool = False) -> str | None:
    """The one spelling of an href: an absolute path, percent-encoded once. None if it names another origin.

    Servers write the same resource as a path or a URL, with and without percent-encoding (RFC 4918 §8.3).
    `any_origin` is for names that are never asked for elsewhere: a server behind a front end writes its own.
    """
    try:
        there, here = urlsplit(urljoin(base, href)), urlsplit(base)
        same_origin = (there.scheme, there.hostname, there.port) == (here.scheme, here.hostname, here.port)
    except ValueError:
        return None
    return quote(unquote(there.path), safe=SAFE_IN_PATH) if same_origin or any_origin else None
