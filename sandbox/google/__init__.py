"""A stand-in for Google Calendar v3 and its OAuth token endpoint: a real HTTP server, its state in memory.

Start it with `python -m sandbox.google --port 0 --ready-file PATH [--seed N]`, or inside a test with
`server.ThreadedServer` or `server.make_app`. Everything about it is steered over `/__control/` on loopback,
for which `control.GoogleControl` is the client; settings, faults, edits and seeds are the models in
`specs`.

What it covers: calendarList.list/get, calendars.get,
events.list/get/insert/update/patch/delete/move/instances and the refresh grant. Full lists, page tokens,
sync tokens and deltas; tombstones and cancelled instances; recurrence with overrides; ETags, If-Match,
If-None-Match, gzip and `fields`; the error table of `errors.CATALOGUE`; quotas; and scripted misbehaviour,
on the wire and in the pages.

What it does not cover: push channels, ACLs and sharing (a calendar has one owner; two accounts may hold
calendars with the same id, but they are two calendars), settings, colours, freeBusy, events.import and
quickAdd, batch, invitations and their copies on guests' calendars, consent, scopes, service accounts,
`timeZone` conversion of times, and the daily or operational limits of the real quotas. State is gone when
the process ends.

What rests on documentation, on other people's reports or on a guess, because nobody here could ask Google:

* Documented, or reported by several independent clients: which parameters a sync token excludes, 410
  `fullSyncRequired` and `updatedMinTooLongAgo`, 400 `invalid` "Invalid sync token value." for garbage, page
  tokens bound to their query, `invalid_grant`, the shape of tombstones and cancelled instances, ids, ETags
  of events, and that singleEvents=true turns one touched series into hundreds of entries.
* Reported once or twice: the reasons `syncTokenWithRequestRestrictions` and
  `syncTokenWithNonDefaultOrdering`; that a query with orderBy, q, iCalUID, updatedMin or an extended
  property ends without a sync token (`token_for_filtered_lists`); that an unchanged calendar answers with
  the token it was asked with (`new_token_when_quiet=False`; the default is the harder case, a new one each
  time); the 29 days of updatedMin.
* Guesses: what happens to a token when `singleEvents` and the like change (400 `invalidParameter` here, or
  `changed_params="ignore"`); whether the exceptions of a deleted master appear in the delta (not here,
  unless `list_exceptions_of_deleted_master`); that exceptions which no longer fit a changed series come as
  cancelled; the order of a list; what an item that changes during paging does (it may be missing from a
  delta's later pages, or be newer than the token, and comes in the next delta in any case); lifetimes of
  tokens and tombstones; whether refused requests count against a quota; unknown parameters (refused here,
  to catch our typos, unless `strict_params=False`); maxResults above 2500 (clipped here).
"""
