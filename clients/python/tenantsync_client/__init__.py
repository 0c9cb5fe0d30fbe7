"""Follows processes of Tenantsync: every event once and in order, over its HTTP API or over Supabase.

with watch_process("https://sync.example.com", process_id, token=token) as events:
    for event in events:
        print(event.sequence, event.type, event.data)
"""

from tenantsync_client.feeds import HttpFeed
from tenantsync_client.stream import ProcessStream, State
from tenantsync_client.supabase import SupabaseFeed
from tenantsync_client.values import Gap, ProcessEvent, Refused, Unavailable, is_over
from tenantsync_client.watching import watch_process, watch_process_on_supabase

__all__ = [
    "Gap",
    "HttpFeed",
    "ProcessEvent",
    "ProcessStream",
    "Refused",
    "State",
    "SupabaseFeed",
    "Unavailable",
    "is_over",
    "watch_process",
    "watch_process_on_supabase",
]
