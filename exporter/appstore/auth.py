"""The bearer token of App Store Connect, as an httpx.Auth.

Source of the rules: Apple, "Generating tokens for API requests": ES256, audience `appstoreconnect-v1`,
at most 20 minutes from `iat` to `exp`; an individual key has `sub: "user"` in place of the issuer.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Generator

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from exporter.errors import ConfigError

__all__ = ["TokenAuth", "load_private_key"]

AUDIENCE = "appstoreconnect-v1"
API_PATH = "app_store_connect_path"  # request extension: the path as Apple sees it, behind any proxy's prefix

_SKEW = 60  # seconds by which `iat` lies in the past, to forgive a clock that is a little fast
_LIFETIME = 18 * 60  # seconds from now to `exp`; with the skew 19 of the 20 minutes that Apple allows
_RENEW = 3 * 60  # seconds before `exp` at which a token is no longer reused: longer than one exchange lasts
_MOST_TOKENS = 256
_MOST_KEY_TEXT = 64 * 1024
_DER_SEQUENCE = b"\x30"  # with which every private key in DER begins, PKCS#8 or SEC 1
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]{0,30}(?:PRIVATE|PUBLIC) KEY)-----([^-]*)-----END \1-----")
_GIVE_THE_FILE = (
    "Give the content of the file AuthKey_….p8 as downloaded from App Store Connect → Users and Access → "
    "Integrations: it begins with “-----BEGIN PRIVATE KEY-----”. It can be downloaded only once; if it is "
    "lost, revoke the key and generate a new one."
)


def load_private_key(text: str, where: str = "") -> ec.EllipticCurvePrivateKey:
    r"""Read the private key of an App Store Connect API key.

    Args:
        text: the content of `AuthKey_….p8` (PKCS#8 PEM), or the same key as SEC 1; line ends may be real,
            written out as `\n`, or turned into spaces; quotes around it are ignored. Or all of that once more
            in Base64. Or the lines between BEGIN and END alone.
        where: heads the error, such as "account main".

    Raises:
        ConfigError: it is anything else than an unencrypted P-256 private key. The text is never repeated.
    """
    try:
        return _p256(_der(text))
    except ValueError as error:
        raise ConfigError(str(error), remedy=_GIVE_THE_FILE, where=where) from None


class TokenAuth(httpx.Auth):
    """Signs requests to App Store Connect; safe to share between threads.

    A token is signed once and reused until three minutes before its end.

    Args:
        key_id: the API key's id, such as `2X9R4HXF34`.
        issuer_id: the team's issuer id; None for an individual key.
        private_key: as `load_private_key` returns it.
        scoped: restrict each token to `GET` of the one path it is sent to (Apple's `scope` claim).
        clock: the time in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        key_id: str,
        issuer_id: str | None,
        private_key: ec.EllipticCurvePrivateKey,
        scoped: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.key_id = key_id
        self.issuer_id = issuer_id
        self._private_key = private_key
        self._scoped = scoped
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[float, str]] = {}  # scope → (reuse until, token), oldest first

    def __repr__(self) -> str:
        return f"TokenAuth(key_id={self.key_id!r}, scoped={self._scoped})"

    def token(self, path: str) -> str:
        """Return a token good for `GET path`, where path is such as `/v1/apps`, without the query."""
        scope = f"GET {path}" if self._scoped else ""
        now = self._clock()
        with self._lock:
            reuse_until, token = self._tokens.get(scope, (0.0, ""))
            if now >= reuse_until:
                token = self._sign(scope, now)
                self._store(scope, token, now)
            return token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the signed request, and once more with a new token when the first was refused with a 401.

        The path is the request extension `API_PATH` where it is set, else that of the URL.
        """
        path = str(request.extensions.get(API_PATH, request.url.path))
        token = self.token(path)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._forget(token)
            request.headers["Authorization"] = f"Bearer {self.token(path)}"
            yield request

    def _sign(self, scope: str, now: float) -> str:
        claims: dict[str, object] = {"iss": self.issuer_id} if self.issuer_id is not None else {"sub": "user"}
        claims |= {"iat": int(now) - _SKEW, "exp": int(now) + _LIFETIME, "aud": AUDIENCE}
        if scope:
            claims["scope"] = [scope]
        return jwt.encode(claims, self._private_key, algorithm="ES256", headers={"kid": self.key_id})

    def _store(self, scope: str, token: str, now: float) -> None:
        kept = {name: held for name, held in self._tokens.items() if now < held[0] and name != scope}
        while len(kept) >= _MOST_TOKENS:
            del kept[next(iter(kept))]
        self._tokens = {**kept, scope: (now + _LIFETIME - _RENEW, token)}

    def _forget(self, refused: str) -> None:
        # Another thread may have put a newer token in its place, which has to stay.
        with self._lock:
            self._tokens = {name: held for name, held in self._tokens.items() if held[1] != refused}


def _p256(der: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("the private key cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the private key is not a P-256 key")
    return key


def _der(text: str) -> bytes:
    """Return what the Base64 of the key stands for, however it was handed over."""
    if not text.strip():
        raise ValueError("the private key is empty")
    if len(text) > _MOST_KEY_TEXT:
        raise ValueError("the private key is far too long to be one")
    decoded = _from_base64(text)
    found = _PEM.search(_unescaped(text)) or _PEM.search(_unescaped(decoded.decode("ascii", "replace")))
    if found is None and decoded.startswith(_DER_SEQUENCE):
        return decoded
    if found is None:
        raise ValueError("the private key is not a PEM file")
    label, content = found.groups()
    if "PUBLIC" in label:
        raise ValueError("a public key was given as the private key")
    if "ENCRYPTED" in label:
        raise ValueError("the private key is encrypted with a passphrase")
    return _from_base64(content)


def _unescaped(text: str) -> str:
    return text.replace("\\r", "\n").replace("\\n", "\n")


def _from_base64(text: str) -> bytes:
    """Return what a Base64 text stands for; nothing if it is none."""
    compact = "".join(_unescaped(text).split()).strip("'\"\ufeff")
    try:
        return base64.b64decode(compact, validate=True)
    except ValueError:
        return b""
