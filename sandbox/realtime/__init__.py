"""A stand-in for Supabase Realtime, and one origin for it and everything else of a project.

`/realtime/v1/…` is answered here; every other path goes to @supabase/lite, which has no Realtime. What it does as the
hosted service does it: Phoenix channels over a WebSocket, in both versions of the protocol that the official clients
speak (1.0.0 and 2.0.0, binary broadcasts included), heartbeats, private topics whose readers and writers are decided by
the row-level security of `realtime.messages` evaluated as the user, that decision again with every new access token,
channels that close when their token expires, broadcasts from the database, from clients and over HTTP.

What it does not do, and a hosted project does:

- `postgres_changes` (asking for them is answered by an error) and presence (accepted, and nobody is ever told);
- replay of earlier messages, and limits on messages, joins, connections and channels;
- asymmetric keys: tokens are signed with the project's shared secret (HS256);
- several nodes. The hosted service reads the write-ahead log and can be seconds late; this one listens, and is not.

As there, nothing is promised: what is sent while the database or the listener is away is lost, and whoever reads too
slowly is disconnected.
"""
