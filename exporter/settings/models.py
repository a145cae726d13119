"""Every setting: its name, type, default and what it is for.

The descriptions are written for the reference page and for editors: `json_schema()` carries them there.
A key without a value, null or empty text counts as not given, so that `${NAME:-}` leaves a default alone.
"""

from __future__ import annotations

import re
from datetime import tzinfo
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from exporter.appstore import addresses
from exporter.errors import ConfigError
from exporter.settings import values

if TYPE_CHECKING:
    from exporter.assets.model import Alert

MAX_KEY_FILE = 65_536

_DurationInput = Annotated[str, Field(pattern=values.DURATION_PATTERN)] | float
_RatioInput = Annotated[str, Field(pattern=values.RATIO_PATTERN)] | float
_SizeInput = Annotated[str, Field(pattern=values.SIZE_PATTERN)] | int

Duration = Annotated[float, BeforeValidator(values.duration, json_schema_input_type=_DurationInput)]
Size = Annotated[int, BeforeValidator(values.size, json_schema_input_type=_SizeInput)]
FilePath = Annotated[Path, AfterValidator(values.file_path)]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Section(BaseModel):
    """What all parts of the configuration have in common: frozen, and no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_is_not_given(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None and value != ""}


def _split(value: object) -> object:
    return [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value


Entries = Annotated[tuple[Text, ...], BeforeValidator(_split, json_schema_input_type=tuple[Text, ...] | str)]


class AppSelection(Section):
    """Which of an account's apps are polled, and under which service names they appear."""

    include: Entries = Field(
        default=("*",),
        min_length=1,
        description="Apps to poll: bundle ids, Apple ids (digits only) or globs on the bundle id (*, ?, "
        "[ab]), as a list or separated by commas. Exact ids cost fewest requests.",
    )
    exclude: Entries = Field(
        default=(), description="Apps to leave out although `include` names them; written in the same way."
    )
    service_names: dict[str, Text] = Field(
        default_factory=dict,
        description="The `service.name` of an app, by bundle id or Apple id. Without an entry it is the "
        "bundle id. Use it when the app already reports to your backend under another name.",
    )

    def selects(self, app_id: str, bundle_id: str) -> bool:
        """Whether the app with this Apple id and bundle id is to be polled."""
        return _named(self.include, app_id, bundle_id) and not _named(self.exclude, app_id, bundle_id)

    def exact(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """(Apple ids, bundle ids) when `include` has no glob, so that the listing can be filtered by them."""
        if any(character in entry for entry in self.include for character in "*?["):
            return None
        app_ids = tuple(entry for entry in self.include if _is_app_id(entry))
        return app_ids, tuple(entry for entry in self.include if not _is_app_id(entry))

    def service_name(self, bundle_id: str, app_id: str) -> str:
        """The app's `service.name`."""
        return self.service_names.get(bundle_id) or self.service_names.get(app_id) or bundle_id


def _is_app_id(entry: str) -> bool:
    return entry.isascii() and entry.isdigit()


def _named(entries: tuple[str, ...], app_id: str, bundle_id: str) -> bool:
    return any(entry == app_id or fnmatchcase(bundle_id, entry) for entry in entries)


def _short_list(value: object) -> object:
    return {"include": value} if isinstance(value, (list, tuple, str)) else value


class Account(Section):
    """One App Store Connect team or person, with the key that reads its apps."""

    name: Text = Field(
        default="main",
        description="What this account is called in logs, on the status page and as `appstore.account` on "
        "every point. Must differ between accounts.",
    )
    issuer_id: Text | None = Field(
        default=None,
        description="Issuer id of a team key (App Store Connect, Users and Access, Integrations). Leave it "
        "out for an individual key, which has none.",
    )
    key_id: Text = Field(
        description="Key id, shown beside the key in App Store Connect (ASC_KEY_ID for a single account)."
    )
    private_key: SecretStr | None = Field(
        default=None,
        description="The key itself (AuthKey_….p8): PEM, PEM with \\n written out, or base64. Either this or "
        "`private_key_file`.",
    )
    private_key_file: FilePath | None = Field(
        default=None,
        description="Path of the AuthKey_….p8 file, relative to the working directory. Either this or "
        "`private_key`.",
    )
    restrict_token: bool = Field(
        default=False,
        description="Sign a token for each path asked, with a `scope`, so that a leaked token can read "
        "nothing else. Costs a signature a request.",
    )
    base_url: Annotated[str, AfterValidator(addresses.base_url)] = Field(
        default="https://api.appstoreconnect.apple.com",
        description="Where App Store Connect is. Change it only for a proxy or a test server; the token is "
        "sent to this host and to no other. https, or plain http to this machine itself.",
    )
    environment: Text = Field(
        default="production",
        description="`deployment.environment.name` on every point of its apps, which Datadog shows as `env`; "
        "`environment` on what the exporter says of the account.",
    )
    apps: Annotated[
        AppSelection, BeforeValidator(_short_list, json_schema_input_type=AppSelection | list[str] | str)
    ] = Field(
        default=AppSelection(),
        description="Which apps to poll. A plain list is short for `include`.",
    )

    @field_validator("private_key_file")
    @classmethod
    def _refuse_a_key_for_a_path(cls, path: Path) -> Path:
        if "-----BEGIN" in str(path) or len(str(path)) > 1000:
            raise ValueError("must be the path of a file; a key's own text belongs in private_key")
        return path

    @model_validator(mode="after")
    def _one_key(self) -> Account:
        if self.private_key and self.private_key_file:
            raise ValueError("has both private_key and private_key_file; keep one of them")
        if not self.private_key and not self.private_key_file:
            raise ValueError(
                "has neither private_key nor private_key_file; give one of them (for a single "
                "account ASC_PRIVATE_KEY or ASC_PRIVATE_KEY_FILE will do)"
            )
        return self

    def private_key_text(self) -> str:
        """The private key as it was given, or as its file has it. Nothing is said of whether it is a key.

        Raises:
            ConfigError: the file cannot be read, or is larger than a key can be.
        """
        return self.private_key.get_secret_value() if self.private_key else self._key_file_text()

    def _key_file_text(self) -> str:
        try:
            with Path(self.private_key_file or "").expanduser().open("rb") as file:
                content = file.read(MAX_KEY_FILE + 1)
        except (OSError, ValueError) as error:
            raise self._key_file_error(f"cannot be read: {_reason(error)}") from None
        if len(content) > MAX_KEY_FILE:
            raise self._key_file_error("is larger than 64 KiB, which no key is")
        return content.decode("utf-8", errors="replace")

    def _key_file_error(self, what: str) -> ConfigError:
        return ConfigError(
            f"private_key_file{_shown(self.private_key_file)} {what}",
            where=f"account {self.name}",
            remedy="Give the path of the AuthKey_….p8 file and let the exporter's user read it.",
        )


def _shown(path: Path | None) -> str:
    # A key pasted in place of its path is longer than any sensible path.
    return f" ({path})" if path is not None and len(str(path)) <= 120 else ""


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "unknown reason").lower() if isinstance(error, OSError) else "not a valid path"


class Schedule(Section):
    """When Apple is asked, and how often the newest answers are sent again."""

    poll: Annotated[str, AfterValidator(values.cron)] = Field(
        default="17 */6 * * *",
        description="When to ask App Store Connect: cron with five fields (minute, hour, day of month, "
        "month, weekday). Name weekdays mon to sun. When day and weekday are both given, both "
        "must hold. Apple's data changes at most about once a day.",
    )
    timezone: Annotated[str, AfterValidator(values.timezone)] = Field(
        default="UTC", description="Time zone in which `poll` is meant, as in Europe/Berlin."
    )
    heartbeat: Duration = Field(
        default=240.0,
        ge=1,
        le=3600,
        json_schema_extra={"default": "4m"},
        description="How often the newest values are sent again, so that charts have no gaps and monitors "
        "see data. Asks Apple for nothing. The default is below the 5m over which Datadog interpolates and "
        "after which the Collector's Prometheus exporter drops a series, with a minute to spare. A longer "
        "one suits a backend that bills by data points per minute.",
    )
    jitter: Duration = Field(
        default=300.0,
        ge=0,
        le=86_400,
        json_schema_extra={"default": "5m"},
        description="A poll starts up to this much later than planned, at random, so that many exporters do "
        "not ask at the same second.",
    )
    poll_at_start: bool = Field(
        default=True,
        description="Poll right after the start if a planned poll was missed meanwhile, if the configuration "
        "changed, or if there is no data yet; otherwise the start asks Apple for nothing.",
    )

    @property
    def tzinfo(self) -> tzinfo:
        """The time zone in which `poll` is meant."""
        return values.zone(self.timezone)


class Collect(Section):
    """How much of what Apple measures becomes data points."""

    detail: Literal["aggregate", "standard", "full"] = Field(
        default="standard",
        description="aggregate: device families only (all iPhones, all iPads); standard: families for every "
        "version, device models for the newest two versions of a platform, error margins, goals and "
        "breakdowns on families only; full: everything for every version and model.",
    )
    categories: Annotated[tuple[Text, ...], AfterValidator(values.categories)] = Field(
        default=("*",),
        min_length=1,
        description="Globs on Apple's categories (HANG, LAUNCH, MEMORY, DISK, BATTERY, TERMINATION, "
        'ANIMATION, STORAGE), in upper or lower case; "!…" excludes. New categories of Apple\'s '
        'fit "*".',
    )
    devices: Annotated[tuple[Text, ...], AfterValidator(values.devices)] = Field(
        default=("*",),
        min_length=1,
        description='Globs on Apple\'s device identifiers (all_iphones, "iPhone15,*"); "!…" excludes. Put '
        "identifiers with a comma in quotes.",
    )
    builds: int = Field(
        default=0,
        ge=0,
        le=50,
        description="Also ask for the metrics of the newest so many builds of each app. Costs a request a "
        "build.",
    )
    events: bool = Field(
        default=True,
        description="Send diagnostic logs and Apple's insights as events too (OTLP log records). false for a "
        "Collector without a pipeline for logs; gauges and histograms stay.",
    )


class Diagnostics(Section):
    """Hangs, slow launches and disk writes: Apple's signatures, and the logs behind them."""

    versions: int = Field(
        default=3,
        ge=0,
        le=20,
        description="Of how many of the newest versions of each platform. Costs a request a version for the "
        "signatures, and one for each signature that is new or changed. 0: no diagnostics.",
    )
    testflight: bool = Field(
        default=False,
        description="Also versions that are only in TestFlight.",
    )
    top_signatures: int = Field(
        default=10,
        ge=0,
        le=200,
        description="How many signatures of each type and version become series, the heaviest first. The "
        "others are counted, and their logs collected all the same.",
    )
    logs: bool = Field(
        default=True,
        description="Download the logs of signatures, for events with call stacks and for histograms of "
        "durations and bytes written.",
    )


class Regression(Section):
    """When the newest version counts as worse than those before it."""

    min_change: Annotated[float, BeforeValidator(values.ratio, json_schema_input_type=_RatioInput)] = Field(
        default=0.05,
        ge=0,
        le=10,
        json_schema_extra={"default": "5%"},
        description="Least change against the mean of the earlier versions, as a ratio or in percent; "
        "smaller ones are not called a regression, whatever the error margins say. One that was stays so "
        "down to half of it.",
    )


class Limits(Section):
    """What the exporter may use up."""

    key_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="The part of the key's hourly requests that the exporter may use; the rest stays for CI "
        "and other users of the key. 1 if nobody else has it.",
    )
    series_per_app: int = Field(
        default=4000,
        ge=1,
        le=1_000_000,
        description="Most time series of one app; the least important beyond it are left out and counted. A "
        "guard for the backend's bill. A quarter is kept for diagnostics, unless there are none.",
    )
    response_size: Size = Field(
        default=64 * 1024 * 1024,
        ge=1,
        le=1024**3,
        json_schema_extra={"default": "64MiB"},
        description="Largest answer that is read from App Store Connect; a larger one is an error.",
    )


Protocol = Literal["http/protobuf", "grpc", "console", "file"]


def _no_json(value: object) -> object:
    if value == "http/json":
        raise ValueError("cannot be http/json; use http/protobuf, which every OTLP/HTTP receiver takes")
    return value


class Otlp(Section):
    """Where the points go. The names and meanings are those of the OpenTelemetry OTLP exporter."""

    protocol: Annotated[
        Literal["http/protobuf", "grpc", "console", "file"],
        BeforeValidator(_no_json, json_schema_input_type=Literal["http/protobuf", "grpc", "console", "file"]),
    ] = Field(
        default="http/protobuf",
        description="http/protobuf or grpc for a Collector; console and file write what would be sent, to "
        "look at it.",
    )
    endpoint: str | None = Field(
        default=None,
        description="Base address of the Collector; /v1/metrics is appended for http/protobuf. Not given: "
        "http://localhost:4318, for grpc http://localhost:4317. For grpc host:port will do.",
    )
    metrics_endpoint: str | None = Field(
        default=None,
        description="Full address for metrics, used exactly as it stands in place of `endpoint`.",
    )
    logs_endpoint: str | None = Field(
        default=None,
        description="Full address for events, used exactly as it stands. Not given: `endpoint` with /v1/logs "
        "appended for http/protobuf, or /v1/logs beside the /v1/metrics of `metrics_endpoint`.",
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Headers sent with each request, for a receiver that wants a token. Values never appear "
        "in logs.",
    )
    compression: Literal["gzip", "none"] = Field(
        default="gzip", description="none only for a receiver that cannot unpack gzip."
    )
    timeout: Duration = Field(
        default=10.0,
        gt=0,
        le=3600,
        json_schema_extra={"default": "10s"},
        description="How long one request to the receiver may take. Longer than the Collector waits for its "
        "backend, 8 s in our configurations, or what was taken may come twice.",
    )
    certificate: FilePath | None = Field(
        default=None,
        description="PEM file with the certificates to trust, for a receiver with a private CA.",
    )
    client_key: FilePath | None = Field(
        default=None, description="PEM file with the exporter's own key, for mutual TLS."
    )
    client_certificate: FilePath | None = Field(
        default=None, description="PEM file with the exporter's own certificate, for mutual TLS."
    )
    insecure: bool = Field(
        default=False,
        description="No TLS for a grpc endpoint without a scheme (host:port). An http:// or https:// "
        "endpoint says it itself.",
    )
    file: FilePath = Field(
        default=Path("otlp.jsonl"),
        description="File that protocol `file` appends to, one JSON object a line.",
    )

    @field_validator("endpoint", "metrics_endpoint", "logs_endpoint")
    @classmethod
    def _address(cls, address: str, info: ValidationInfo) -> str:
        if info.data.get("protocol") == "grpc":
            return values.grpc_target(address)
        if info.field_name != "endpoint":
            values.split_url(address)
            return address
        for signal in ("metrics", "logs"):
            if values.base_url(address).endswith(f"/v1/{signal}"):
                raise ValueError(
                    f"must end before /v1/{signal}, which is appended; a full address is {signal}_endpoint"
                )
        return address

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        named = {values.header_name(name): value for name, value in headers.items()}
        if len(named) < len(headers):
            raise ValueError("must name each header once; upper and lower case do not differ")
        for value in named.values():
            values.check_header_value(value.get_secret_value())
        return named

    @model_validator(mode="after")
    def _client_pair(self) -> Otlp:
        if (self.client_key is None) != (self.client_certificate is None):
            raise ValueError("needs client_key and client_certificate together, or neither")
        return self

    @property
    def destination(self) -> str:
        """Where points go, for people: a URL or target with its protocol, a file, or the terminal."""
        if self.protocol == "console":
            return "the terminal"
        if self.protocol == "file":
            return str(self.file)
        address = re.sub(r"[?#].*", "", self.metrics_url)  # a query may hold a token
        return f"{address} ({self.protocol})"

    @property
    def metrics_url(self) -> str:
        """Where metrics are sent: the full URL for http/protobuf, the target for grpc."""
        if self.metrics_endpoint:
            return self.metrics_endpoint
        if self.protocol == "grpc":
            return self.endpoint or "http://localhost:4317"
        return (self.endpoint or "http://localhost:4318").rstrip("/") + "/v1/metrics"

    @property
    def logs_url(self) -> str:
        """Where events are sent: the full URL for http/protobuf, the target for grpc."""
        if self.logs_endpoint:
            return self.logs_endpoint
        if self.protocol == "grpc":
            return self.metrics_url
        beside_metrics = (self.metrics_endpoint or "").removesuffix("/v1/metrics")
        if not self.endpoint and beside_metrics != (self.metrics_endpoint or ""):
            return beside_metrics + "/v1/logs"
        return (self.endpoint or "http://localhost:4318").rstrip("/") + "/v1/logs"


class State(Section):
    """What the exporter remembers between polls and restarts."""

    path: FilePath = Field(
        default=Path("state/perfpower.db"),
        description="SQLite file. Put it on a volume that survives a restart; without it, values are "
        "missing until the next poll.",
    )


class Http(Section):
    """The exporter's own small web server."""

    listen: str = Field(
        default="127.0.0.1:13134",
        description="host:port of /livez, /readyz and the status page; 0.0.0.0:13134 in a container, off "
        "for no server.",
    )

    @field_validator("listen")
    @classmethod
    def _listen(cls, text: str) -> str:
        values.listen_address(text)
        return text

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None when there is to be no server."""
        return values.listen_address(self.listen)


def _one_or_several(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be on one line, without control characters")
    return text


Line = Annotated[Text, AfterValidator(_on_one_line)]
Lines = Annotated[
    tuple[Line, ...], BeforeValidator(_one_or_several, json_schema_input_type=tuple[Line, ...] | str)
]


def _alert(name: str) -> Alert:
    # Imported here because only `assets` needs it, and every command reads the settings.
    from exporter.assets.alerts import alerts

    known = {alert.id: alert for alert in alerts()}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=3) if len(name) <= 60 else []
    hint = f"did you mean {', '.join(near)}?" if near else "docs/alerts.md has them"
    raise ValueError(f"must be the id of an alert; {hint}")


def _alert_id(name: str) -> str:
    return _alert(name).id


def _with_a_threshold(name: str) -> str:
    if _alert(name).highest is None:
        raise ValueError(
            "has no threshold to choose: one is enough for it, or it keeps to a limit of Apple's"
        )
    return name


def _within_reach(name: str, threshold: float) -> None:
    """By a threshold that nothing reaches it would never fire, or always."""
    alert = _alert(name)
    if alert.highest is not None and threshold > alert.highest:
        unit = "s" if alert.unit == "s" else ""
        raise ValueError(
            f"must be at most {alert.highest:.15g}{unit and ' '}{unit} for {name}; unless set it is "
            f"{alert.threshold:.15g}"
        )


AlertId = Annotated[Line, AfterValidator(_alert_id)]
AlertWithThreshold = Annotated[Line, AfterValidator(_with_a_threshold)]


class Alerts(Section):
    """The alerts that `assets` writes. The exporter itself does not read them."""

    services: Lines = Field(
        default=(),
        description="`service.name` of the apps that are watched: the bundle id, or what "
        "`apps.service_names` says. Empty: all.",
    )
    environments: Lines = Field(
        default=(),
        description="`deployment.environment.name` of the apps that are watched, `environment` of their "
        "account. Empty: all. Of the exporter itself every account is watched.",
    )
    notify: Lines = Field(
        default=(),
        description="Whom to tell of what is `critical` or `warning`, in the backend's own words: "
        "`@slack-mobile` in Datadog, `Email,team@example.com` in Splunk Observability, a label such as "
        "`team=mobile` for the routes of Prometheus' Alertmanager. Of `info` nobody is told. One, or a list.",
    )
    thresholds: dict[AlertWithThreshold, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="The threshold of an alert, by its id: `{DataStale: 90000}`. docs/alerts.md has the ids, "
        "units and defaults.",
    )
    disabled: Annotated[
        tuple[AlertId, ...], BeforeValidator(_split, json_schema_input_type=tuple[AlertId, ...] | str)
    ] = Field(default=(), description="Ids of alerts that are not wanted; docs/alerts.md has them.")
    runbook: Line | None = Field(
        default=None,
        description="Where messages send people: the address before `#` and the alert's id in lower case. "
        "Not given: docs/alerts.md of this project.",
    )

    @field_validator("thresholds")
    @classmethod
    def _possible(cls, thresholds: dict[str, float]) -> dict[str, float]:
        for name, threshold in thresholds.items():
            _within_reach(name, threshold)
        return thresholds

    @field_validator("runbook")
    @classmethod
    def _address(cls, address: str) -> str:
        return values.page_url(address)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Level = Literal["debug", "info", "warning", "error"]


class Log(Section):
    """The exporter's own log, on standard error."""

    level: Annotated[Level, BeforeValidator(_lower, json_schema_input_type=Level)] = Field(
        default="info", description="Least important level that is written."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, json elsewhere."
    )


class Settings(Section):
    """The whole configuration."""

    accounts: tuple[Account, ...] = Field(
        default=(), description="App Store Connect accounts. Most have one; each has its own key and hour."
    )
    schedule: Schedule = Field(default=Schedule(), description="When to poll and how often to send again.")
    collect: Collect = Field(default=Collect(), description="How much detail to collect.")
    diagnostics: Diagnostics = Field(default=Diagnostics(), description="Signatures and their logs.")
    regression: Regression = Field(default=Regression(), description="What counts as a regression.")
    limits: Limits = Field(default=Limits(), description="How much the exporter may take, hold and send.")
    otlp: Otlp = Field(default=Otlp(), description="Where the points go.")
    state: State = Field(default=State(), description="Where the exporter remembers what it has seen.")
    http: Http = Field(default=Http(), description="Health checks and the status page.")
    log: Log = Field(default=Log(), description="The exporter's own log.")
    alerts: Alerts = Field(
        default=Alerts(), description="What `perfpower-exporter assets` writes; see docs/alerts.md."
    )

    @field_validator("accounts")
    @classmethod
    def _different_names(cls, accounts: tuple[Account, ...]) -> tuple[Account, ...]:
        names = [account.name for account in accounts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"must have different names; more than one is called {', '.join(twice)}")
        return accounts
