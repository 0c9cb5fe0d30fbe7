"""Radicale, a CalDAV server, with users of our own choosing."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape

import httpx

from sandbox.servers.ports import HOST
from sandbox.servers.process import ManagedProcess
from sandbox.servers.server import PROBE_TIMEOUT, Server, remembered

if TYPE_CHECKING:
    from collections.abc import Iterator

HINT = "If the log names the storage, remove the folder above and start again."
PROBE = "readiness-probe"
_USER_NAME = re.compile(r"[A-Za-z0-9._@-]+")
_COMPONENT = re.compile(r"^BEGIN:(VEVENT|VTIMEZONE)\r?$.*?^END:\1\r?$", re.MULTILINE | re.DOTALL)

# The delays are Radicale's answer to password guessing. They also hold back the 403 of an invalid sync token,
# by a second or more. `owner_only` verifies nothing unless there are passwords (notes on `type = none`).
CONFIGURATION = """\
[server]
hosts = {host}:{port}
max_connections = 100
timeout = 30
delay_on_error = 0
[auth]
type = htpasswd
htpasswd_filename = {folder}/users
htpasswd_encryption = plain
delay = 0
[rights]
type = owner_only
[storage]
type = multifilesystem
filesystem_folder = {folder}/collections
max_sync_token_age = {max_sync_token_age}
[web]
type = none
[logging]
level = warning
"""

MAKE_CALENDAR = """\
<?xml version="1.0" encoding="utf-8"?>
<C:mkcalendar xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><D:set><D:prop>
<D:displayname>{name}</D:displayname>
<C:supported-calendar-component-set><C:comp name="VEVENT"/></C:supported-calendar-component-set>
</D:prop></D:set></C:mkcalendar>
"""


class Radicale(Server):
    """Users may be added and removed while it runs: it reads their file anew for every login.

    Each sync costs it the whole collection (8 s for 5,000 events), so keep calendars at 500 or below.
    """

    kind = "radicale"

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int | None = None,
        name: str | None = None,
        max_sync_token_age: int = 2_592_000,
    ) -> None:
        super().__init__(folder=folder, port=port, name=name)
        self._max_sync_token_age = max_sync_token_age
        self._users = dict(line.split(":", 1) for line in remembered(self._file, lambda: "").splitlines())
        self._users.setdefault(PROBE, secrets.token_urlsafe(24))
        self._write_users()

    @property
    def _file(self) -> Path:
        return self.folder / "users"

    @property
    def url(self) -> str:
        return f"http://{self.address}/"

    def add_user(self, name: str, password: str | None = None) -> str:
        """Its password, a random one unless given. An existing user gets the new password."""
        secret = secrets.token_urlsafe(16) if password is None else password
        if not _USER_NAME.fullmatch(name) or "\n" in secret:
            raise ValueError(f"{name!r} or its password cannot stand in an htpasswd file")
        self._users[name] = secret
        self._write_users()
        return secret

    def remove_user(self, name: str) -> None:
        """The calendars stay, out of reach until the user is added again."""
        del self._users[name]
        self._write_users()

    def calendar_url(self, user: str, calendar: str) -> str:
        return f"{self.url}{quote(user)}/{quote(calendar)}/"

    def create_calendar(self, user: str, calendar: str, *, display_name: str | None = None) -> str:
        """Its URL. The calendar must not exist yet."""
        url = self.calendar_url(user, calendar)
        body = MAKE_CALENDAR.format(name=escape(display_name or calendar))
        with self.client(user) as client:
            client.request("MKCALENDAR", url, content=body.encode()).raise_for_status()
        return url

    def fill_calendar(self, user: str, calendar: str, items: Iterable[str], *, display_name: str | None = None) -> str:
        """Put the whole calendar at once, in place of what it held; its URL.

        `items` are iCalendar texts; their events become `<UID>.ics`. 500 take 1.1 s, against 7 s one by one.
        """
        # As the keys of a dict: the same time zone stands in many items, and once is enough.
        components = dict.fromkeys(found[0].rstrip("\r") for item in items for found in _COMPONENT.finditer(item))
        head = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//tenantsync//sandbox//EN"]
        head.append(f"X-WR-CALNAME:{display_name or calendar}")
        body = "\r\n".join([*head, *components, "END:VCALENDAR", ""])
        url = self.calendar_url(user, calendar)
        with self.client(user) as client:
            client.put(url, content=body.encode(), headers={"Content-Type": "text/calendar"}).raise_for_status()
        return url

    @contextmanager
    def client(self, user: str) -> Iterator[httpx.Client]:
        """Logged in as `user`; the machine's proxy settings do not apply."""
        access = (user, self._users[user])
        with httpx.Client(auth=access, timeout=60, trust_env=False) as client:
            yield client

    def _write_users(self) -> None:
        """By rename, because Radicale may be reading."""
        draft = self._file.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text("".join(f"{name}:{password}\n" for name, password in self._users.items()))
        draft.replace(self._file)

    def _build(self, port: int) -> ManagedProcess:
        configuration = self.folder / "radicale.ini"
        configuration.write_text(
            CONFIGURATION.format(host=HOST, port=port, folder=self.folder, max_sync_token_age=self._max_sync_token_age)
        )
        return ManagedProcess(
            name=self.name,
            # -P: no module of the working folder may stand in for one of Radicale's.
            command=[sys.executable, "-P", "-m", "radicale", "--config", configuration],
            log_path=self.log_path,
            hint=HINT,
            cwd=self.folder,
        )

    def _ready(self, port: int) -> bool:
        """Only our server knows the probe's password."""
        try:
            with self.client(PROBE) as client:
                answer = client.request(
                    "PROPFIND",
                    f"http://{HOST}:{port}/{PROBE}/",
                    headers={"Depth": "0"},
                    timeout=PROBE_TIMEOUT,
                )
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.MULTI_STATUS
