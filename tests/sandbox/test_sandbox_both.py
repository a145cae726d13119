from __future__ import annotations

import time

import httpx
import jwt
import pytest

from exporter.sandbox import AppStoreSandbox, OtlpReceiver, Sandbox


def test_the_environment_is_all_that_is_needed() -> None:
    """With the five variables alone a client gets apps from one end and is heard by the other."""
    with Sandbox() as sandbox, httpx.Client(trust_env=False) as client:
        environ = sandbox.environ()
        assert set(environ) == {
            "ASC_ISSUER_ID",
            "ASC_KEY_ID",
            "ASC_PRIVATE_KEY",
            "ASC_BASE_URL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        }
        now = int(time.time())
        claims = {"iss": environ["ASC_ISSUER_ID"], "iat": now, "exp": now + 60, "aud": "appstoreconnect-v1"}
        headers = {"kid": environ["ASC_KEY_ID"]}
        token = jwt.encode(claims, environ["ASC_PRIVATE_KEY"], algorithm="ES256", headers=headers)
        apps = client.get(f"{environ['ASC_BASE_URL']}/v1/apps", headers={"Authorization": f"Bearer {token}"})
        assert len(apps.json()["data"]) == 3
        client.post(
            f"{environ['OTEL_EXPORTER_OTLP_ENDPOINT']}/v1/metrics",
            headers={"Content-Type": "application/x-protobuf"},
        )
        assert [record.status for record in sandbox.receiver.requests] == [200]


def test_parts_can_be_handed_in_and_are_closed_together() -> None:
    """The sandbox starts the parts it was given and closes both."""
    appstore, receiver = AppStoreSandbox(seed=5), OtlpReceiver()
    with Sandbox(appstore=appstore, receiver=receiver) as sandbox:
        assert sandbox.environ()["ASC_BASE_URL"] == appstore.url
    for part in (appstore, receiver):
        with pytest.raises(RuntimeError, match="not open"):
            _ = part.url


def test_a_taken_port_leaves_nothing_open() -> None:
    """When the second part cannot start, the first is closed again."""
    with OtlpReceiver() as other:
        port = int(other.url.rpartition(":")[2])
        appstore = AppStoreSandbox()
        with (
            pytest.raises(OSError, match="in use"),
            Sandbox(appstore=appstore, receiver=OtlpReceiver(port=port)),
        ):
            pass
        with pytest.raises(RuntimeError, match="not open"):
            _ = appstore.url
