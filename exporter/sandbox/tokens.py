"""How App Store Connect looks at a bearer token. Pure but for the signature, which pyjwt checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

AUDIENCE = "appstoreconnect-v1"
LONGEST_LIFE_SECONDS = 20 * 60
CLOCK_LEEWAY_SECONDS = 10

Query = Mapping[str, str]


class TokenError(Exception):
    """The token is not good; the text says why, without the token."""


def check_token(
    header: str | None,
    *,
    key: EllipticCurvePublicKey,
    key_id: str,
    issuer_id: str,
    now: float,
    request: tuple[str, str, Query],
) -> None:
    """Raise TokenError unless the `Authorization` header bears a token that is good for this request.

    Args:
        header: the header's value, or None.
        key: the public half of the API key.
        key_id: what the token's `kid` has to be.
        issuer_id: what its `iss` has to be; an individual key has no `iss`, but `sub: user`.
        now: Unix seconds.
        request: method, path and query parameters, for tokens with a `scope`.
    """
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenError("there is no bearer token")
    claims = _claims(token.strip(), key, key_id)
    _check_issuer(claims, issuer_id)
    _check_times(claims, now)
    _check_scope(claims, *request)


def _claims(token: str, key: EllipticCurvePublicKey, key_id: str) -> dict[str, Any]:
    try:
        if jwt.get_unverified_header(token).get("kid") != key_id:
            raise TokenError("kid is not the id of a known key")
        # Times are checked against our own clock, not pyjwt's.
        return jwt.decode(
            token,
            key,
            algorithms=["ES256"],
            audience=AUDIENCE,
            options={
                "require": ["iat", "exp", "aud"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_sub": False,
            },
        )
    except jwt.PyJWTError as error:
        raise TokenError(f"the token cannot be verified: {type(error).__name__}") from error


def _check_issuer(claims: Mapping[str, Any], issuer_id: str) -> None:
    individual = "iss" not in claims and claims.get("sub") == "user"
    if not individual and claims.get("iss") != issuer_id:
        raise TokenError("iss is not the issuer of this key, and sub is not user")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    issued, expires = claims["iat"], claims["exp"]
    if not _is_number(issued) or not _is_number(expires):
        raise TokenError("iat and exp have to be numbers")
    if issued > now + CLOCK_LEEWAY_SECONDS:
        raise TokenError("iat lies in the future")
    if expires <= now:
        raise TokenError("the token has expired")
    if not 0 < expires - issued <= LONGEST_LIFE_SECONDS:
        raise TokenError("exp has to follow iat by at most 20 minutes")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_scope(claims: Mapping[str, Any], method: str, path: str, query: Query) -> None:
    if "scope" not in claims:
        return
    scope = claims["scope"]
    if not isinstance(scope, list) or not any(_covers(entry, method, path, query) for entry in scope):
        raise TokenError("scope does not cover this request")


def _covers(entry: object, method: str, path: str, query: Query) -> bool:
    allowed_method, _, target = str(entry).partition(" ")
    parts = urlsplit(target)
    needed = parse_qsl(parts.query, keep_blank_values=True)
    same = allowed_method == method and parts.path == path
    return same and all(query.get(name) == value for name, value in needed)
