"""A built-in App Store Connect and OTLP receiver, over real HTTP: the first five minutes, and the tests."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from exporter.sandbox.appstore import AppStoreRequest, AppStoreSandbox, Fault, error_body
from exporter.sandbox.diagnostics import SandboxLog, SandboxSignature
from exporter.sandbox.points import Point
from exporter.sandbox.receiver import OtlpFault, OtlpReceiver, OtlpRequest
from exporter.sandbox.records import Record
from exporter.sandbox.store import SandboxBuild, Store

__all__ = [
    "AppStoreRequest",
    "AppStoreSandbox",
    "Fault",
    "OtlpFault",
    "OtlpReceiver",
    "OtlpRequest",
    "Point",
    "Record",
    "Sandbox",
    "SandboxBuild",
    "SandboxLog",
    "SandboxSignature",
    "Store",
    "error_body",
]


class Sandbox:
    """Both ends of the exporter, as a context manager.

    Args:
        appstore: the App Store Connect to start; by default one whose days last a minute.
        receiver: the OTLP receiver to start.
    """

    def __init__(
        self, *, appstore: AppStoreSandbox | None = None, receiver: OtlpReceiver | None = None
    ) -> None:
        self.appstore = appstore or AppStoreSandbox()
        self.receiver = receiver or OtlpReceiver()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.appstore)
            starting.enter_context(self.receiver)
            self._open = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def environ(self) -> dict[str, str]:
        """The environment variables with which the exporter finds both ends; to be kept out of logs."""
        return {
            "ASC_ISSUER_ID": self.appstore.issuer_id,
            "ASC_KEY_ID": self.appstore.key_id,
            "ASC_PRIVATE_KEY": self.appstore.private_key_pem,
            "ASC_BASE_URL": self.appstore.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url,
        }

    def newest_build(self) -> str:
        """The first app's newest version that has diagnostics, as `com.example.harbour:7.40.0`."""
        store, day = self.appstore.store, self.appstore.day()
        app = store.apps[0]
        versions = (b.version for b in store.builds(app.id, day) if store.signatures(b.id, day))
        return f"{app.bundle_id}:{next(versions)}"
