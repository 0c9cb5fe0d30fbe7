"""Tokens, sessions and log-ins: what is good, what was good, and what never was."""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from sqlalchemy import text

from db.repositories import identity
from db.session import Database
from tenantsync.identity import people
from tenantsync.identity.public_keys import PublicKeys
from tenantsync.identity.roles import Role
from tenantsync.identity.tokens import ISSUER
from tests.support.jwks import KeyServer, Signer, key_server
from tests.support.web import PASSWORD, Web

pytest_plugins = ["tests.support.web_fixtures"]

SUPABASE_SECRET = "a-shared-secret-of-a-project-that-is-long-enough"
Forge = Callable[[Web, str], str]


@pytest.fixture
def jwks() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


def me(client: httpx.Client, token: str) -> httpx.Response:
    return client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})


def resigned(web: Web, token: str, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """The token with other claims, signed with our own key: what a thief of the key could do, or a bug of ours."""
    held = {**jwt.decode(token, options={"verify_signature": False}), **claims}
    headers = {**jwt.get_unverified_header(token), **(header or {})}
    kept = {key: value for key, value in held.items() if value is not None}
    return jwt.encode(kept, web.tokens._key, algorithm="HS256", headers={"kid": headers["kid"], **(header or {})})


def unsigned(web: Web, token: str) -> str:
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, None, algorithm="none", headers={"kid": jwt.get_unverified_header(token)["kid"]})


def with_stranger_key(web: Web, token: str) -> str:
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    return jwt.encode(claims, "k" * 32, algorithm="HS256", headers={"kid": kid})


def with_key_in_header(web: Web, token: str) -> str:
    signer = Signer.make("mine")
    claims = jwt.decode(token, options={"verify_signature": False})
    headers = {"kid": "mine", "jwk": signer.public(), "jku": "http://127.0.0.1:1/keys"}
    return jwt.encode(claims, signer.private, algorithm="ES256", headers=headers)


FORGERIES: dict[str, Forge] = {
    "no signature": unsigned,
    "no signature, spelt oddly": lambda web, token: unsigned(web, token).replace("bm9uZSI", "Tk9OZSI"),
    "another key": with_stranger_key,
    "a key that it brings along": with_key_in_header,
    "half of it": lambda _, token: token[: len(token) // 2],
    "two of it": lambda _, token: f"{token}.{token}",
    "nothing": lambda *_: ".",
    "endless": lambda *_: "a." * 6000,
    "over": lambda web, token: resigned(web, token, exp=int(time.time()) - 60),
    "without an end": lambda web, token: resigned(web, token, exp=None),
    "for somebody else": lambda web, token: resigned(web, token, aud="somebody else"),
    "a cookie": lambda web, token: resigned(web, token, aud="tenantsync:pages"),
    "of another issuer": lambda web, token: resigned(web, token, iss="https://elsewhere.example"),
    "without a session": lambda web, token: resigned(web, token, sid=None),
    "of a session that never was": lambda web, token: resigned(web, token, sid=str(uuid4())),
    "of another's session": lambda web, token: resigned(web, token, sub=str(uuid4())),
    "a kid that is a path": lambda web, token: resigned(web, token, header={"kid": "../../dev/null"}),
    "a kid that is SQL": lambda web, token: resigned(web, token, header={"kid": "' or 1=1 --"}),
    "an id that is no UUID": lambda web, token: resigned(web, token, sid=["a"]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_token_is_nobodys(identity_web: Web, name: str) -> None:
    web = identity_web
    token = web.token(web.user(Role.OPERATOR))

    answer = me(web.client(), FORGERIES[name](web, token))

    assert answer.status_code == 401
    assert me(web.client(), token).status_code == 200


@pytest.fixture(scope="module")
def identity_web(module_web: Web) -> Web:
    """One server for all the forgers: none of them changes anything."""
    return module_web


def test_a_role_in_a_token_is_not_believed(web: Web) -> None:
    tenant_id, _ = web.tenant()
    token = web.token(web.user(Role.MEMBER, tenant_id=tenant_id))

    answer = me(web.client(), resigned(web, token, role="operator", tenant_id=None))

    assert (answer.json()["role"], answer.json()["tenant_id"]) == ("member", str(tenant_id))


def pair(web: Web, email: str) -> dict[str, Any]:
    answer = web.client().post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def refreshed(web: Web, token: str) -> httpx.Response:
    return web.client().post("/api/v1/auth/refresh", json={"refresh_token": token})


def test_a_refresh_token_is_good_once_and_whoever_uses_it_again_ends_the_session(web: Web) -> None:
    first = pair(web, web.user(Role.OPERATOR))
    second = refreshed(web, first["refresh_token"]).json()
    third = refreshed(web, second["refresh_token"]).json()

    stolen = refreshed(web, first["refresh_token"])

    assert stolen.status_code == 401
    assert refreshed(web, third["refresh_token"]).status_code == 401
    assert me(web.client(), third["access_token"]).status_code == 401


def test_a_refresh_whose_answer_was_lost_may_be_asked_for_again_and_voids_the_lost_one(web: Web) -> None:
    first = pair(web, web.user(Role.OPERATOR))
    lost = refreshed(web, first["refresh_token"]).json()

    again = refreshed(web, first["refresh_token"])

    assert again.status_code == 200
    assert refreshed(web, lost["refresh_token"]).status_code == 401
    assert refreshed(web, again.json()["refresh_token"]).status_code == 200


def test_after_a_while_a_refresh_token_that_comes_again_is_taken_for_stolen(web: Web, database: Database) -> None:
    first = pair(web, web.user(Role.OPERATOR))
    refreshed(web, first["refresh_token"])
    with database.transaction() as connection:
        connection.execute(text("update identity.refresh_tokens set used_at = used_at - interval '1 minute'"))

    assert refreshed(web, first["refresh_token"]).status_code == 401
    assert me(web.client(), first["access_token"]).status_code == 401


def test_only_hashes_of_refresh_tokens_are_stored(web: Web, database: Database) -> None:
    token = pair(web, web.user(Role.OPERATOR))["refresh_token"]
    with database.reading() as connection:
        rows = str(connection.execute(text("select * from identity.refresh_tokens")).all())
        users = connection.execute(text("select password_hash from identity.users")).scalars().all()

    assert token not in rows
    assert all(one.startswith("$argon2id$") for one in users)


def test_whoever_logs_out_is_out_everywhere_at_once(web: Web) -> None:
    email = web.user(Role.OPERATOR)
    here, there = web.token(email), web.token(email)

    web.client().post("/api/v1/auth/logout?everywhere=true", headers={"Authorization": f"Bearer {here}"})

    assert [me(web.client(), one).status_code for one in (here, there)] == [401, 401]


def test_whoever_is_disabled_is_out_with_the_next_request(web: Web, database: Database) -> None:
    email = web.user(Role.OPERATOR)
    token = web.token(email)
    with database.transaction() as connection:
        found = identity.by_email(connection, email=email)
        assert found is not None
        people.set_disabled(connection, user=found[0], disabled=True, by="test")

    login = web.client().post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})

    assert me(web.client(), token).status_code == 401
    assert login.status_code == 401


def test_an_account_takes_ten_guesses_and_then_one_in_half_a_minute(web: Web, database: Database) -> None:
    email = web.user(Role.OPERATOR)
    key = {"email": email, "password": "a guess"}
    with database.transaction() as connection:  # nine of them, without what they cost
        account = "account:" + hashlib.sha256(email.encode()).hexdigest()
        statement = "insert into identity.attempts values (:key, now() + interval '269 s')"
        connection.execute(text(statement), {"key": account})

    tenth = web.client().post("/api/v1/auth/login", json=key)
    next_one = web.client().post("/api/v1/auth/login", json=key)

    assert tenth.status_code == 401
    assert next_one.status_code == 429
    assert 1 <= int(next_one.headers["Retry-After"]) <= 31


def test_what_people_change_is_written_down(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    admin = web.bearer(Role.ADMIN, tenant_id=tenant_id)
    path = admin.post("/api/v1/users", json={"email": "a@b.example", "password": "long enough 1"}).headers["Location"]
    admin.patch(path, json={"disabled": True})

    with database.reading() as connection:
        query = "select action, actor from worker.audit_logs where tenant_id = :tenant order by id"
        rows = connection.execute(text(query), {"tenant": tenant_id}).all()
    by_admin = [row.action for row in rows if row.actor.startswith("user:")]

    assert by_admin == ["user.add", "user.change"]


def test_what_is_over_is_forgotten_and_what_is_not_is_kept(web: Web, database: Database) -> None:
    kept, gone = web.user(Role.OPERATOR), web.user(Role.OPERATOR)
    token = web.token(kept)
    web.token(gone)
    with database.transaction() as connection:
        found = identity.by_email(connection, email=gone)
        assert found is not None
        statement = "update identity.sessions set expires_at = now() - interval '8 days' where user_id = :user"
        connection.execute(text(statement), {"user": found[0].user_id})
        keys = "('a', now() - interval '1 s'), ('b', now() + interval '1 h')"
        connection.execute(text(f"insert into identity.attempts values {keys}"))

        forgotten = identity.forget_old(connection)

    assert forgotten == 2
    assert me(web.client(), token).status_code == 200


# Supabase's tokens


def claims(tenant_id: UUID | None, **more: Any) -> dict[str, Any]:
    return {
        "iss": "http://127.0.0.1:1/auth/v1",
        "aud": "authenticated",
        "role": "authenticated",
        "sub": str(uuid4()),
        "email": "ann@example.test",
        "exp": int(time.time()) + 600,
        "app_metadata": {} if tenant_id is None else {"tenant_id": str(tenant_id)},
    } | more


def shared(held: dict[str, Any]) -> str:
    return jwt.encode(held, SUPABASE_SECRET, algorithm="HS256")


def test_a_supabase_user_is_a_member_of_the_tenant_that_the_project_says(make_web: Callable[..., Web]) -> None:
    web = make_web(supabase_jwt_secret=SUPABASE_SECRET)
    tenant_id, workspace_id = web.tenant()
    data = {"tenant_id": str(tenant_id), "role": "admin", "workspace_ids": [str(workspace_id)]}

    plain = me(web.client(), shared(claims(tenant_id, user_metadata={"role": "admin", "tenant_id": str(uuid4())})))
    kept = me(web.client(), shared(claims(tenant_id, app_metadata=data)))
    data.pop("workspace_ids")
    admin = me(web.client(), shared(claims(tenant_id, app_metadata=data)))
    operator = me(web.client(), shared(claims(tenant_id, app_metadata=data | {"role": "operator"})))

    assert (plain.json()["role"], plain.json()["tenant_id"]) == ("member", str(tenant_id))
    assert (admin.json()["role"], admin.json()["workspace_ids"]) == ("admin", None)
    assert (kept.json()["role"], kept.json()["workspace_ids"]) == ("member", [str(workspace_id)])
    assert operator.json()["role"] == "member"


REFUSED: dict[str, dict[str, Any]] = {
    "no tenant": {"app_metadata": {}},
    "a tenant that is no id": {"app_metadata": {"tenant_id": "acme"}},
    "workspaces that are no list": {"app_metadata": {"tenant_id": str(uuid4()), "workspace_ids": "all"}},
    "the service role": {"role": "service_role"},
    "anonymous": {"role": "anon"},
    "of another project": {"iss": "https://other.supabase.co/auth/v1"},
    "for another audience": {"aud": "anon"},
    "over": {"exp": int(time.time()) - 60},
    "says that it is ours": {"iss": ISSUER},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_supabase_token_that_is_not_quite_one_is_nobodys(supabase_web: Web, name: str) -> None:
    assert me(supabase_web.client(), shared(claims(uuid4(), **REFUSED[name]))).status_code == 401


@pytest.fixture(scope="module")
def supabase_web(make_module_web: Callable[..., Web]) -> Web:
    return make_module_web(supabase_jwt_secret=SUPABASE_SECRET)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_signed_with_a_key_of_the_project_is_taken(
    make_web: Callable[..., Web], jwks: KeyServer, algorithm: str
) -> None:
    signer = Signer.make("one", algorithm)
    jwks.keys = [signer.public(), {"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "alg": "HS256"}]
    web = make_web(supabase_jwks_url=jwks.url)
    tenant_id, _ = web.tenant()

    answers = [me(web.client(), signer.sign(claims(tenant_id))) for _ in range(3)]

    assert [one.status_code for one in answers] == [200, 200, 200]
    assert jwks.asked == 1


def test_a_public_key_is_not_taken_for_a_secret(make_web: Callable[..., Web], jwks: KeyServer) -> None:
    signer = Signer.make("one", "RS256")
    jwks.keys = [signer.public(), {"kty": "oct", "kid": "shared", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]
    web = make_web(supabase_jwks_url=jwks.url)
    held = claims(uuid4())
    key = b"secretsecretsecretsecretsecret!!"

    confused = [
        jwt.encode(held, key, algorithm="HS256", headers={"kid": kid}) for kid in ("one", "shared", "no such key")
    ]

    assert [me(web.client(), one).status_code for one in confused] == [401, 401, 401]


def test_new_keys_are_found_and_old_ones_stay_good_while_the_address_fails(jwks: KeyServer) -> None:
    keys = PublicKeys(jwks.url, pace=0.0)
    jwks.keys = [Signer.make("old").public()]

    before = keys.find("old")
    jwks.keys = [*jwks.keys, Signer.make("new").public()]
    rotated = keys.find("new")
    jwks.status = 500
    unknown = keys.find("third")

    assert before is not None
    assert rotated is not None
    assert unknown is None
    assert keys.find("new") is rotated


def test_the_address_of_the_keys_leads_nowhere_else(make_web: Callable[..., Web], jwks: KeyServer) -> None:
    signer = Signer.make("one")
    with key_server() as elsewhere:
        elsewhere.keys = [signer.public()]
        jwks.status, jwks.headers = 302, {"Location": elsewhere.url}
        web = make_web(supabase_jwks_url=jwks.url)

        answer = me(web.client(), signer.sign(claims(uuid4())))

    assert answer.status_code == 401
    assert elsewhere.asked == 0


def test_whoever_names_unknown_keys_does_not_make_us_ask_again_and_again(
    make_web: Callable[..., Web], jwks: KeyServer
) -> None:
    web = make_web(supabase_jwks_url=jwks.url)

    for number in range(5):
        me(web.client(), Signer.make(f"no {number}").sign(claims(uuid4())))

    assert jwks.asked == 1
