from __future__ import annotations

import base64
import threading
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from exporter.appstore.auth import API_PATH, TokenAuth, load_private_key
from exporter.errors import ConfigError

KEY = ec.generate_private_key(ec.SECP256R1())
URL = "https://api.appstoreconnect.apple.com/v1/apps"


def pem(key: PrivateKeyTypes, encryption: KeySerializationEncryption | None = None) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


PEM = pem(KEY)
BODY = PEM.split("-----")[2]
SEC1 = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def auth(clock: Clock, *, issuer_id: str | None = "issuer", scoped: bool = False) -> TokenAuth:
    return TokenAuth(key_id="KEY1234567", issuer_id=issuer_id, private_key=KEY, scoped=scoped, clock=clock)


def claims(token: str) -> dict[str, object]:
    decoded: dict[str, object] = jwt.decode(
        token, KEY.public_key(), algorithms=["ES256"], audience="appstoreconnect-v1"
    )
    return decoded


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.strip(),
        f"\ufeff  {PEM}\n\n",
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", "\\n"),
        PEM.replace("\n", "\\r\\n"),
        PEM.replace("\n", " "),
        f'"{PEM}"',
        f"'{PEM.strip()}' ",
        '"' + PEM.replace("\n", "\\n") + '"',
        base64.b64encode(PEM.encode()).decode(),
        base64.encodebytes(PEM.encode()).decode(),
        f' "{base64.b64encode(PEM.encode()).decode()}" ',
        base64.b64encode(PEM.replace("\n", "\\n").encode()).decode(),
        BODY,
        "".join(BODY.split()),
        f'"{BODY.replace(chr(10), chr(92) + "n")}"',
        f"\ufeff{base64.b64encode(PEM.encode()).decode()}",
        SEC1,
        SEC1.replace("\n", " "),
        base64.b64encode(SEC1.encode()).decode(),
        f"Bag Attributes\n{PEM}",
        f"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{SEC1}",
    ],
)
def test_a_key_is_read_however_it_was_handed_over(text: str) -> None:
    """Line ends, quotes, Base64, the armour and the form of the key make no difference."""
    assert load_private_key(text).private_numbers() == KEY.private_numbers()


OTHER_CURVE = pem(ec.generate_private_key(ec.SECP384R1()))
RSA = pem(rsa.generate_private_key(65537, 2048))
LOCKED = pem(KEY, BestAvailableEncryption(b"passphrase"))
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("not-a-key-SECRET", "not a PEM file"),
        ("U0VDUkVU", "not a PEM file"),
        ("/etc/keys/AuthKey_SECRET.p8", "not a PEM file"),
        ("-----BEGIN PRIVATE KEY-----\nU0VDUkVU\n-----END PRIVATE KEY-----", "cannot be read"),
        ("-----BEGIN PRIVATE KEY-----\nSECRET é\n-----END PRIVATE KEY-----", "cannot be read"),
        ("-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----", "cannot be read"),
        ("-----BEGIN PRIVATE KEY-----", "not a PEM file"),
        (PEM[: len(PEM) // 2], "not a PEM file"),
        (PEM[:-40], "not a PEM file"),
        ("".join(BODY.split())[:64], "cannot be read"),
        ("secret words", "not a PEM file"),
        ("é", "not a PEM file"),
        ("x" * 100_000, "far too long"),
        (OTHER_CURVE, "not a P-256 key"),
        (RSA, "not a P-256 key"),
        (LOCKED, "encrypted with a passphrase"),
        (LOCKED.split("-----")[2], "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "not a PEM file"),
        (PUBLIC, "public key"),
        (PUBLIC.split("-----")[2], "cannot be read"),
    ],
)
def test_what_is_no_p256_private_key_is_refused(text: str, what: str) -> None:
    """The error says what is wrong and what to give, and repeats nothing of the text."""
    with pytest.raises(ConfigError, match=what) as caught:
        load_private_key(text, "account main")
    assert caught.value.where == "account main"
    assert "AuthKey_" in caught.value.remedy
    assert "SECRET" not in str(caught.value)
    assert "U0VDUkVU" not in str(caught.value)
    assert "secret words" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_team_keys_token_is_what_apple_asks_for() -> None:
    """Header and claims follow Apple's documentation; iat is a little in the past, exp within 20 minutes."""
    clock = Clock()
    token = auth(clock).token("/v1/apps")
    told = claims(token)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "KEY1234567", "typ": "JWT"}
    issued, expires = told.pop("iat"), told.pop("exp")
    assert told == {"iss": "issuer", "aud": "appstoreconnect-v1"}
    assert isinstance(issued, int)
    assert isinstance(expires, int)
    assert 30 <= clock.now - issued <= 120
    assert expires - issued <= 20 * 60


def test_an_individual_key_has_a_subject_instead_of_an_issuer() -> None:
    """Without an issuer the claim `sub` is `user`."""
    told = claims(auth(Clock(), issuer_id=None).token("/v1/apps"))
    assert told["sub"] == "user"
    assert "iss" not in told


def test_a_token_is_reused_until_shortly_before_its_end() -> None:
    """One token serves all paths until there is less time left than a request may take."""
    clock = Clock()
    signer = auth(clock)
    first = signer.token("/v1/apps")
    ends = claims(first)["exp"]
    assert isinstance(ends, int)
    clock.now = ends - 200
    assert signer.token("/v1/builds") == first
    clock.now = ends - 170
    assert signer.token("/v1/apps") != first


def test_a_scoped_token_is_good_for_one_path() -> None:
    """With `scoped` each path has its own token, reused for that path."""
    signer = auth(Clock(), scoped=True)
    first = signer.token("/v1/apps")
    other = signer.token("/v1/apps/1/perfPowerMetrics")
    assert claims(first)["scope"] == ["GET /v1/apps"]
    assert claims(other)["scope"] == ["GET /v1/apps/1/perfPowerMetrics"]
    assert signer.token("/v1/apps") == first
    assert signer.token("/v1/apps/1/perfPowerMetrics") == other


def test_scoped_tokens_do_not_pile_up() -> None:
    """The oldest token goes when there are 256; all that ended go at the next signing."""
    clock = Clock()
    signer = auth(clock, scoped=True)
    tokens = [signer.token(f"/v1/apps/{number}") for number in range(257)]
    assert len(signer._tokens) == 256
    assert signer.token("/v1/apps/256") == tokens[256]
    assert signer.token("/v1/apps/0") != tokens[0]
    clock.now += 3600
    signer.token("/v1/apps")
    assert len(signer._tokens) == 1


def test_a_refused_token_is_signed_anew_once() -> None:
    """After a 401 the request goes out once more with a new token, and then no more."""
    signer = auth(Clock())
    flow = signer.auth_flow(httpx.Request("GET", URL))
    first = next(flow).headers["Authorization"]
    second = flow.send(httpx.Response(401)).headers["Authorization"]
    assert first.startswith("Bearer ")
    assert second not in (first, "")
    assert second == f"Bearer {signer.token('/v1/apps')}"
    with pytest.raises(StopIteration):
        flow.send(httpx.Response(401))


@pytest.mark.parametrize("status", [200, 403, 404, 429, 500])
def test_only_a_401_is_asked_again(status: int) -> None:
    """Other answers end the flow and keep the token."""
    signer = auth(Clock())
    flow = signer.auth_flow(httpx.Request("GET", URL))
    first = next(flow).headers["Authorization"]
    with pytest.raises(StopIteration):
        flow.send(httpx.Response(status))
    assert f"Bearer {signer.token('/v1/apps')}" == first


def test_a_newer_token_survives_the_refusal_of_an_older_one() -> None:
    """Two requests refused at once do not throw away each other's new token."""
    signer = auth(Clock())
    flows = [signer.auth_flow(httpx.Request("GET", URL)) for _ in range(2)]
    for flow in flows:
        next(flow)
    renewed = [flow.send(httpx.Response(401)).headers["Authorization"] for flow in flows]
    assert renewed[0] == renewed[1]


def test_the_scope_leaves_out_query_and_proxy_prefix() -> None:
    """The scope holds the path as Apple sees it: the one given by the client, else that of the URL."""
    signer = auth(Clock(), scoped=True)
    plain = next(signer.auth_flow(httpx.Request("GET", f"{URL}?limit=200")))
    prefixed = next(
        signer.auth_flow(
            httpx.Request("GET", "https://proxy/asc/v1/builds?a=b", extensions={API_PATH: "/v1/builds"})
        )
    )
    scopes = [
        claims(request.headers["Authorization"].removeprefix("Bearer "))["scope"]
        for request in (plain, prefixed)
    ]
    assert scopes == [["GET /v1/apps"], ["GET /v1/builds"]]


def test_no_secret_is_shown() -> None:
    """The repr names the key by its id and nothing else of it."""
    signer = auth(Clock())
    token = signer.token("/v1/apps")
    assert repr(signer) == "TokenAuth(key_id='KEY1234567', scoped=False)"
    assert token not in repr(vars(signer)["_private_key"])


def test_threads_share_one_token() -> None:
    """Threads that ask at the same time get the same token."""
    signer = auth(Clock())
    tokens: list[str] = []
    threads = [threading.Thread(target=lambda: tokens.append(signer.token("/v1/apps"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 16
    assert len(set(tokens)) == 1
