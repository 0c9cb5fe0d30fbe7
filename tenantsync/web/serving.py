"""Serving the application with uvicorn."""

import resource
import socket

import structlog
import uvicorn

from config.settings import Settings
from db.session import Database
from tenantsync.web.app import create_app
from tenantsync.work import intake
from tenantsync.work.doorbell import Doorbell

GRACE = 5  # seconds for requests at work; streams are told to reconnect
KEEP_ALIVE = 65  # seconds; longer than the proxies in front wait, so that they never meet a closing connection
BACKLOG = 4096
POOL_TIMEOUT = 5.0
UNTAKEN = 30_000  # milliseconds
MOST_FILES = 65_536

log = structlog.get_logger(__name__)


def open_pool(settings: Settings) -> Database:
    """The pool of a web process."""
    return Database(
        settings.database_url, pool_size=settings.web_db_pool_size, name="tenantsync web", pool_timeout=POOL_TIMEOUT
    )


class _Server(uvicorn.Server):
    """Ends the streams before it waits for its connections, which would otherwise wait for them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        hub = self.config.app.state.hub  # type: ignore[union-attr]
        if hub is not None:
            hub.end_all("restart")
        await super().shutdown(sockets)


def server_for(settings: Settings, database: Database, *, host: str, port: int) -> uvicorn.Server:
    """A server that is ready to run. Raises SecretKeyMissing."""
    proxies = [str(network) for network in settings.web_trusted_proxies]
    config = uvicorn.Config(
        create_app(settings, database),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        backlog=BACKLOG,
        lifespan="on",
        ws="none",
    )
    return _Server(config)


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve until told to stop."""
    _open_files()
    database = open_pool(settings)
    try:
        server = server_for(settings, database, host=host, port=port)
        listening = _listening(host, port)
        log.info("web_listening", host=host, port=listening.getsockname()[1])
        with Doorbell(settings, lambda: intake.ring(database)):
            server.run(sockets=[listening])
    finally:
        database.close()


def _listening(host: str, port: int) -> socket.socket:
    """A socket whose connections end when nobody takes what is sent: a stream's reader may vanish without a word."""
    listening = socket.create_server((host, port), backlog=BACKLOG, family=_family(host))
    # Connections inherit it. asyncio sets it on none that was accepted from a socket made like this one, and every
    # answer in two parts would wait 40 ms for the reader's delayed acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; taken over by every connection
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN)
    return listening


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _open_files() -> None:
    """As many streams as the system lets us hold, and not the 1,024 that shells usually begin with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
