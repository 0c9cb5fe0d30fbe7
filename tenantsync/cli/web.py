"""`tenantsync web`: API, live streams and the dashboard."""

from typing import Annotated

import typer

from config.log_setup import setup_logging
from config.settings import load_settings
from db.schema import require_current
from tenantsync.cli.common import JsonFlag, Refusal, answering
from tenantsync.web import serving
from tenantsync.web.services import SecretKeyMissing, open_services


def web(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    json: JsonFlag = False,
) -> None:
    """Serve the API, live streams and the dashboard."""
    with answering(as_json=json):
        settings = load_settings()
        setup_logging(settings)
        database = serving.open_pool(settings)
        try:
            open_services(settings, database)
            database.wait_until_reachable(attempts=3)
            require_current(database)
        except SecretKeyMissing as error:
            raise Refusal(str(error)) from None
        finally:
            database.close()
        try:
            serving.serve(settings, host=host, port=port)
        except OSError as error:
            raise Refusal(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port.") from None
