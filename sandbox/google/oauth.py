"""The token endpoint: refresh only, as Google answers it; a refresh token is never rotated."""

from collections.abc import Mapping

from sandbox.google.api import JSON_TYPE, Reply
from sandbox.google.codec import encode
from sandbox.google.specs import Fault
from sandbox.google.store import Store

SCOPE = "https://www.googleapis.com/auth/calendar"


def refresh(store: Store, form: Mapping[str, str]) -> Reply:
    behaviour = store.behaviour
    if (form.get("client_id"), form.get("client_secret")) != (behaviour.client_id, behaviour.client_secret):
        return refusal(401, "invalid_client", "The OAuth client was not found.")
    if form.get("grant_type") != "refresh_token":
        return refusal(400, "unsupported_grant_type", "Invalid grant_type: " + form.get("grant_type", ""))
    token = form.get("refresh_token")
    if not token:
        return refusal(400, "invalid_request", "Missing required parameter: refresh_token")
    account = store.refresh_tokens.get(token)
    if account is None:
        return refusal(400, "invalid_grant", "Bad Request")
    if account.revoked:
        return refusal(400, "invalid_grant", "Token has been expired or revoked.")
    ttl = behaviour.access_token_ttl_s
    body = {
        "access_token": store.grant(account, ttl),
        "expires_in": max(0, int(ttl)),
        "scope": SCOPE,
        "token_type": "Bearer",
    }
    return Reply(200, encode(body), headers={"Cache-Control": "no-store"})


def refusal(status: int, error: str, description: str) -> Reply:
    return Reply(status, encode({"error": error, "error_description": description}), JSON_TYPE)


def scripted(fault: Fault) -> Reply:
    """The token endpoint has an envelope of its own, so a scripted refusal takes that shape here."""
    return refusal(fault.status, fault.reason, fault.message or fault.reason)
