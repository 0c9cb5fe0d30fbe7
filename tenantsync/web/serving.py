"""Serving the application with uvicorn."""

import socket

import structlog
import uvicorn

from config.settings import Settings
from db.session import Database
from tenantsync.web.app import create_app

GRACE = 5  # seconds for requests at work; streams are told to reconnect
KEEP_ALIVE = 65  # seconds; longer than the proxies in front wait, so that they never meet a closing connection
BACKLOG = 4096
POOL_TIMEOUT = 5.0

log = structlog.get_logger(__name__)


def open_pool(settings: Settings) -> Database:
    """The pool of a web process."""
    return Database(
        settings.database_url, pool_size=settings.web_db_pool_size, name="tenantsync web", pool_timeout=POOL_TIMEOUT
    )


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
    return uvicorn.Server(config)


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve until told to stop."""
    database = open_pool(settings)
    try:
        server = server_for(settings, database, host=host, port=port)
        listening = socket.create_server((host, port), backlog=BACKLOG, family=_family(host))
        log.info("web_listening", host=host, port=listening.getsockname()[1])
        server.run(sockets=[listening])
    finally:
        database.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
