"""The two ways in."""

from collections.abc import Mapping
from typing import Any

from tenantsync_client.feeds import SILENCE, HttpFeed
from tenantsync_client.sending import Token
from tenantsync_client.stream import ProcessStream
from tenantsync_client.supabase import LOOK_EVERY, SupabaseFeed


def watch_process(
    base_url: str,
    process_id: str,
    *,
    token: Token = None,
    headers: Mapping[str, str] | None = None,
    silence: float = SILENCE,
    **options: Any,
) -> ProcessStream:
    """Follow a process over the HTTP API. `options`: those of ProcessStream."""
    feed = HttpFeed(base_url, process_id, token=token, headers=headers, silence=silence)
    return ProcessStream(feed, **options)


def watch_process_on_supabase(
    url: str,
    apikey: str,
    process_id: str,
    *,
    tenant_id: str,
    token: Token,
    look_every: float = LOOK_EVERY,
    **options: Any,
) -> ProcessStream:
    """Follow a process over Supabase, with a member's token. `options`: those of ProcessStream."""
    feed = SupabaseFeed(url, apikey, process_id, tenant_id=tenant_id, token=token, look_every=look_every)
    return ProcessStream(feed, **options)
