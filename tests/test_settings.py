"""The models: what each setting accepts, what it means, and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from exporter.errors import ConfigError
from exporter.settings import (
    Account,
    Alerts,
    AppSelection,
    Collect,
    Http,
    Limits,
    Otlp,
    Schedule,
    Settings,
    json_schema,
    load,
    load_without_accounts,
)

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
BODY = "".join(PEM.splitlines()[1:-1])
SCHEMA = Path(__file__).parents[1] / "config" / "exporter.schema.json"


def account(**given: object) -> Account:
    return Account.model_validate({"key_id": "KEY1", "private_key": PEM, **given})


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("4m", 240),
        ("1h", 3600),
        ("59m30s", 3570),
        ("1500ms", 1.5),
        ("90", 90),
        ("2.5", 2.5),
        (30, 30),
        (" 4m ", 240),
    ],
)
def test_duration(written: object, seconds: float) -> None:
    """A duration is a number of seconds, or whole numbers with units from large to small."""
    assert Schedule.model_validate({"heartbeat": written}).heartbeat == seconds


@pytest.mark.parametrize(
    "written",
    [
        "m",
        "0.4",
        "4 m",
        "1m1h",
        "4m4m",
        "-4m",
        "1e3",
        "inf",
        "nan",
        "٤m",
        "9" * 5000,
        "4x",
        "2h",
        True,
        [4],
        {},
    ],
)
def test_not_a_heartbeat(written: object) -> None:
    """Neither other spellings nor durations outside a heartbeat's bounds are taken."""
    with pytest.raises(ValidationError):
        Schedule.model_validate({"heartbeat": written})


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("64MiB", 64 * 2**20),
        ("10MB", 10_000_000),
        ("1.5 kB", 1500),
        ("2KiB", 2048),
        ("512", 512),
        (7, 7),
        ("1GiB", 2**30),
    ],
)
def test_size(written: object, count: int) -> None:
    """A size is a number of bytes, or a number with a unit of 1000 or, with an i, of 1024."""
    assert Limits.model_validate({"response_size": written}).response_size == count


@pytest.mark.parametrize("written", ["64 Mi", "-1", "0", "1e9", "2GiB", "many", True, [], "9" * 5000])
def test_not_a_size(written: object) -> None:
    """What is no size, or one out of bounds, is refused."""
    with pytest.raises(ValidationError):
        Limits.model_validate({"response_size": written})


@pytest.mark.parametrize(
    "line", ["17 */6 * * *", "0 9,18 1-7 jan-mar mon", "*/5 * last * *", "0  0 * * sat,sun"]
)
def test_cron(line: str) -> None:
    """A cron line of five fields is taken, with single spaces between them."""
    assert Schedule(poll=line).poll == " ".join(line.split())


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("0 0 * *", "five fields"),
        ("@daily", "five fields"),
        ("0 0 * * 1-5", "mon to sun"),
        ("0 0 * * 0", "mon to sun"),
        ("0 0 * * */2", "mon to sun"),
        ("0 0 * * mon-fri/2", "made of"),
        ("0 0 * * monday", "made of"),
        ("70 * * * *", "59"),
        ("5-1 * * * *", "minimum"),
        ("0 0 31 2 *", "never comes"),
        ("0 0 ? * *", "made of"),
        ("9" * 6000 + " * * * *", "made of"),
    ],
)
def test_not_a_cron_line(line: str, hint: str) -> None:
    """A line that APScheduler refuses, never fires or reads other than cron does is refused with a reason."""
    with pytest.raises(ValidationError, match=hint):
        Schedule(poll=line)


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_leaves_the_default(nothing: object) -> None:
    """A key without a value, or with empty text, has its default."""
    assert Schedule.model_validate({"poll": nothing, "heartbeat": nothing}) == Schedule()


def test_time_zone() -> None:
    """A time zone is known by name, UTC without a tz database, and a misspelt one names the nearest."""
    assert Schedule().tzinfo is UTC
    assert Schedule(timezone="Europe/Berlin").tzinfo == ZoneInfo("Europe/Berlin")
    summer = datetime(2026, 7, 1, tzinfo=Schedule(timezone="Europe/Berlin").tzinfo)
    assert summer.utcoffset() == timedelta(hours=2)
    with pytest.raises(ValidationError, match="did you mean Europe/Berlin"):
        Schedule(timezone="Europe/Berln")


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "Europe", "x\0y", "utc ", "z" * 10_000])
def test_not_a_time_zone(name: str) -> None:
    """A name outside the tz database is refused, whatever it would be on the disk."""
    with pytest.raises(ValidationError, match="tz database"):
        Schedule(timezone=name)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:13134", ("127.0.0.1", 13134)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
        ("off", None),
        ("OFF", None),
    ],
)
def test_listen(text: str, address: tuple[str, int] | None) -> None:
    """The listener's address is host and port; off means none."""
    assert Http(listen=text).address == address


@pytest.mark.parametrize(
    "text", [":80", "80", "localhost", "::1:80", "a:b", "a:70000", "a b:1", "http://a:1"]
)
def test_not_a_listener(text: str) -> None:
    """An address without host or port, or with a port that cannot be, is refused."""
    with pytest.raises(ValidationError, match="host:port"):
        Http(listen=text)


@pytest.mark.parametrize(
    ("include", "exclude", "selected"),
    [
        (["*"], [], True),
        (["com.example.shop"], [], True),
        (["com.example.*"], [], True),
        (["123"], [], True),
        (["com.Example.*"], [], False),
        (["12"], [], False),
        (["1*"], [], False),
        (["*"], ["com.example.shop"], False),
        (["*"], ["123"], False),
        (["*"], ["*.other"], True),
    ],
)
def test_app_selection(include: list[str], exclude: list[str], selected: bool) -> None:
    """An app is polled when an entry names its Apple id or matches its bundle id, and none leaves it out."""
    selection = AppSelection.model_validate({"include": include, "exclude": exclude})
    assert selection.selects("123", "com.example.shop") is selected


def test_exact_selection() -> None:
    """Exact entries are split into Apple ids and bundle ids; with one glob all apps have to be listed."""
    assert AppSelection(include=("123", "com.example.shop")).exact() == (("123",), ("com.example.shop",))
    assert AppSelection(include=("123", "com.example.*")).exact() is None
    assert AppSelection().exact() is None


def test_service_name() -> None:
    """The service name is looked up by bundle id, then by Apple id, and else is the bundle id."""
    selection = AppSelection(service_names={"com.example.shop": "shop-ios", "9": "nine"})
    assert selection.service_name("com.example.shop", "9") == "shop-ios"
    assert selection.service_name("com.example.nine", "9") == "nine"
    assert selection.service_name("com.example.other", "1") == "com.example.other"


def test_list_of_apps_is_short_for_include() -> None:
    """A plain list of apps means include."""
    assert account(apps=["123"]).apps == AppSelection(include=("123",))


def test_empty_selections_are_refused() -> None:
    """An empty list would poll or keep nothing at all, which nobody means."""
    for model, key in ((AppSelection, "include"), (Collect, "categories"), (Collect, "devices")):
        with pytest.raises(ValidationError, match="at least 1"):
            model.model_validate({key: []})


def test_patterns() -> None:
    """Categories become upper case, and a list that only excludes means all the rest."""
    assert Collect(categories=("hang", "!disk*")).categories == ("HANG", "!DISK*")
    assert Collect(categories=("!HANG",)).categories == ("*", "!HANG")
    assert Collect(devices=("iPhone15,*", "!iPhone15,2")).devices == ("iPhone15,*", "!iPhone15,2")


@pytest.mark.parametrize("entry", ["!", " ", ""])
def test_empty_pattern_is_refused(entry: str) -> None:
    """A pattern without a name is refused."""
    with pytest.raises(ValidationError):
        Collect(categories=("*", entry))


def test_device_cut_at_its_comma_is_refused() -> None:
    """`[iPhone15,2]` without quotes is two entries in YAML, and the second gives it away."""
    with pytest.raises(ValidationError, match="in quotes"):
        Collect(devices=("iPhone15", "2"))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://localhost:4318/v1/metrics"),
        ({"endpoint": "https://c.example/otlp/"}, "https://c.example/otlp/v1/metrics"),
        ({"endpoint": "http://c:4318", "metrics_endpoint": "http://c/x?y=1"}, "http://c/x?y=1"),
        ({"protocol": "grpc"}, "http://localhost:4317"),
        ({"protocol": "grpc", "endpoint": "collector:4317"}, "collector:4317"),
        ({"protocol": "grpc", "endpoint": "https://c:4317"}, "https://c:4317"),
        ({"protocol": "grpc", "metrics_endpoint": "dns:///c:4317"}, "dns:///c:4317"),
    ],
)
def test_metrics_url(given: dict[str, str], url: str) -> None:
    """The path is appended to the base for http/protobuf only; a metrics endpoint is used as it stands."""
    assert Otlp.model_validate(given).metrics_url == url


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint": "localhost:4318"},
        {"endpoint": "ftp://localhost"},
        {"endpoint": "http://"},
        {"endpoint": "http://c:99999"},
        {"endpoint": "http://user:pass@c"},
        {"endpoint": "http://c?x=1"},
        {"endpoint": "http://c:4318/v1/metrics"},
        {"endpoint": "http://c/\nx"},
        {"metrics_endpoint": "c:4318"},
        {"protocol": "grpc", "endpoint": "user@c:4317"},
        {"protocol": "grpc", "endpoint": "c 4317"},
        {"protocol": "grpc", "endpoint": "http://"},
        {"protocol": "http/json"},
        {"protocol": ["grpc"]},
        {"client_key": "a.pem"},
        {"client_certificate": "a.pem"},
        {"timeout": "0"},
        {"headers": {"a b": "c"}},
        {"headers": {"a": "b\r\nc: d"}},
        {"headers": {"a": "é"}},
        {"headers": {"a": None}},
        {"headers": {"A": "1", "a": "2"}},
        {"certificate": "a\0b"},
    ],
)
def test_not_an_otlp_receiver(given: dict[str, object]) -> None:
    """What could not reach a receiver, or would say something else to it, is refused."""
    with pytest.raises(ValidationError):
        Otlp.model_validate(given)


def test_header_names_are_lower_case() -> None:
    """Header names become lower case, as gRPC demands."""
    assert list(Otlp.model_validate({"headers": {"X-Token": "t"}}).headers) == ["x-token"]


@pytest.mark.parametrize("text", [PEM.strip(), BODY, "secret words", "x" * 100_000])
def test_private_key_is_handed_on_as_given(text: str) -> None:
    """Whether the text is a key is not for the settings to say."""
    assert account(private_key=text).private_key_text() == text


@pytest.mark.parametrize("content", [PEM.encode(), PEM.replace("\n", "\r\n").encode(), b"", b"x" * 65_536])
def test_private_key_file(tmp_path: Path, content: bytes) -> None:
    """The key is read from its file when it is asked for, and handed on as it stands there."""
    path = tmp_path / "AuthKey.p8"
    entry = account(private_key=None, private_key_file=str(path))
    path.write_bytes(content)
    assert entry.private_key_text() == content.decode()


def test_private_key_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are read all the same, so that the key's own error can be said of them."""
    path = tmp_path / "AuthKey.p8"
    path.write_bytes(b"\xff\xfe-")
    assert account(private_key=None, private_key_file=str(path)).private_key_text() == "\ufffd\ufffd-"


def test_private_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory and a file too large for a key are each named with what is wrong."""
    (tmp_path / "large").write_bytes(b"x" * 65_537)
    for name, reason in (("none", "no such file"), (".", "is a directory"), ("large", "larger than 64 KiB")):
        entry = account(private_key=None, private_key_file=str(tmp_path / name))
        with pytest.raises(ConfigError, match=reason) as caught:
            entry.private_key_text()
        assert caught.value.where == "account main"


@pytest.mark.parametrize("text", [PEM, PEM.replace("\n", " "), BODY, BODY * 10])
def test_key_in_place_of_its_path(text: str) -> None:
    """A key put where its path belongs does not come back in the error."""
    with pytest.raises((ValidationError, ConfigError)) as caught:
        account(private_key=None, private_key_file=text).private_key_text()
    assert text[40:80] not in str(caught.value)


def test_one_key_and_only_one() -> None:
    """An account has its key from one place."""
    with pytest.raises(ValidationError, match="both"):
        account(private_key_file="a.p8")
    with pytest.raises(ValidationError, match="neither"):
        account(private_key="")


@pytest.mark.parametrize(
    "url", ["https://api.example/asc/", "http://localhost:8080", "http://127.0.0.1", "http://[::1]:80"]
)
def test_base_url(url: str) -> None:
    """App Store Connect is reached by https, or by plain http on this machine."""
    assert account(base_url=url).base_url == url.rstrip("/").removesuffix(":80")


@pytest.mark.parametrize(
    "url",
    [
        "http://api.appstoreconnect.apple.com",
        "http://localhost.example",
        "http://0.0.0.0:8080",
        "ftp://api.example",
        "api.example",
        "https://SECRET@api.example",
        "https://api.example?key=SECRET",
        "https://api.example/#SECRET",
        "https://api.example:70000",
        "https://api.example/a b",
    ],
)
def test_not_a_base_url(url: str) -> None:
    """An address to which no bearer token may be sent is refused, and not repeated."""
    with pytest.raises(ValidationError, match="must") as caught:
        account(base_url=url)
    assert "SECRET" not in str(caught.value)


def test_account_names_differ() -> None:
    """Two accounts of one name could not be told apart."""
    with pytest.raises(ValidationError, match="more than one is called main"):
        Settings(accounts=(account(), account()))


def test_secrets_stay_out_of_repr() -> None:
    """Neither the key nor a header's value is shown."""
    otlp = Otlp.model_validate({"headers": {"authorization": "Bearer hush"}})
    shown = repr(Settings(accounts=(account(),), otlp=otlp))
    assert "hush" not in shown
    assert BODY[:20] not in shown


def test_settings_do_not_change() -> None:
    """Settings are frozen."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().log.level = "debug"


def test_every_setting_is_described() -> None:
    """The schema, from which the reference page is made, says of every setting what it is for."""
    schema = json_schema()
    for section in (schema, *schema["$defs"].values()):
        for name, about in section["properties"].items():
            assert len(about.get("description", "")) > 15, name


def test_defaults_of_the_schema_are_the_defaults() -> None:
    """A default shown as text, such as 4m, is the default that is used."""
    sections: dict[str, Any] = json_schema()["$defs"]
    for model in (AppSelection, Schedule, Collect, Limits, Otlp, Http):
        properties = sections[model.__name__]["properties"]
        shown = {name: about["default"] for name, about in properties.items() if "default" in about}
        assert shown
        assert model.model_validate(shown) == model()


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        ({"schedule": {"heartbeat": "1h30m", "jitter": 5, "poll_at_start": "${POLL}"}}, True),
        ({"limits": {"response_size": "10MB", "series_per_app": "${N:-5}"}, "log": None}, True),
        ({"accounts": [{"key_id": "a", "apps": ["b"]}], "log": {"level": "${LEVEL}"}}, True),
        ({"accounts": [{"key_id": "a", "apps": {"include": ["b"]}}]}, True),
        ({"schedule": {"heartbeat": "soon"}}, False),
        ({"log": {"level": "loud"}}, False),
        ({"collect": {"biulds": 1}}, False),
        ({"accounts": [{"name": "a"}]}, False),
    ],
)
def test_schema_judges_the_file_as_it_is_written(document: object, valid: bool) -> None:
    """An editor accepts references, durations and short forms, and marks what load would refuse."""
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(document) is valid


def test_schema_file_is_the_schema() -> None:
    """The schema file that editors read is the one that the models make."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize("apps", ["com.a.one, com.a.two", ["com.a.one", "com.a.two"]])
def test_apps_are_a_list_or_separated_by_commas(apps: object) -> None:
    """So that one variable can name them in the file."""
    assert AppSelection.model_validate({"include": apps}).include == ("com.a.one", "com.a.two")


@pytest.mark.parametrize("name", ["PERFPOWER_SCHEDULE__HEARTBEAT", "PERFPOWER_SCHEDULE_HEARTBEAT"])
def test_an_override_with_one_underscore_is_an_error(name: str) -> None:
    """A setting that nobody reads must not pass in silence."""
    with pytest.raises(ConfigError, match="PERFPOWER__SCHEDULE__HEARTBEAT"):
        load(None, {name: "5m"})


def test_what_kubernetes_sets_for_a_service_is_no_override() -> None:
    """PERFPOWER_HTTP_SERVICE_HOST comes from a Service called perfpower-http."""
    environ = {"PERFPOWER_HTTP_SERVICE_HOST": "10.0.0.1", "PERFPOWER_HTTP_PORT": "tcp://10.0.0.1:80"}
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    assert "PERFPOWER_HTTP" not in str(caught.value)


# Alerts


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({}, Alerts()),
        ({"notify": "Email,a@example.com"}, Alerts(notify=("Email,a@example.com",))),
        ({"notify": ["@a", "@b"], "disabled": None}, Alerts(notify=("@a", "@b"))),
        ({"disabled": "KeyHourUsedUp, DataStale"}, Alerts(disabled=("KeyHourUsedUp", "DataStale"))),
        ({"disabled": ["CollectorQueueFilling"]}, Alerts(disabled=("CollectorQueueFilling",))),
        ({"thresholds": {"DataStale": "90000"}}, Alerts(thresholds={"DataStale": 90000.0})),
        ({"services": ['a"b{c},$d'], "runbook": ""}, Alerts(services=('a"b{c},$d',))),
        ({"runbook": "https://wiki.example.com/a?b=7"}, Alerts(runbook="https://wiki.example.com/a?b=7")),
    ],
)
def test_alerts(written: dict[str, object], found: Alerts) -> None:
    """One recipient needs no list, and a comma is part of it; ids of alerts have none."""
    assert Alerts.model_validate(written) == found


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"disabled": ["HangRateRegresed"]}, "did you mean HangRateRegressed"),
        ({"disabled": ["hangrateregressed"]}, "must be the id of an alert"),
        ({"disabled": ["x" * 200]}, "docs/alerts.md has them"),
        ({"disabled": ["a", 1]}, "should be a valid string"),
        ({"disabled": {}}, "should be a valid tuple"),
        ({"thresholds": {"LaunchTimeRegressed": 2}}, "has no threshold to choose"),
        ({"thresholds": {"LaunchTimePoor": 2}}, "has no threshold to choose"),
        ({"thresholds": {"Nothing": 2}}, "must be the id of an alert"),
        ({"thresholds": {"DataStale": 0}}, "greater than 0"),
        ({"thresholds": {"DataStale": -1}}, "greater than 0"),
        ({"thresholds": {"DataStale": float("nan")}}, "finite number"),
        ({"thresholds": {"DataStale": float("inf")}}, "finite number"),
        ({"thresholds": {"DataStale": 1e13}}, "at most 2592000 s for DataStale; unless set it is 46800"),
        ({"thresholds": {"NewHeavyProblem": 20}}, "at most 1 for NewHeavyProblem; unless set it is 0.5"),
        ({"thresholds": {"KeyHourUsedUp": 1.5}}, "at most 0.9 for KeyHourUsedUp"),
        ({"thresholds": {"PollsFailing": 21}}, "at most 20 for PollsFailing"),
        ({"thresholds": {"HighImpactRegression": 200}}, "has no threshold to choose"),
        ({"thresholds": {"DataStale": "13h"}}, "valid number"),
        ({"thresholds": {"DataStale": None}}, "valid number"),
        ({"thresholds": ["DataStale"]}, "valid dictionary"),
        ({"services": ["a\nb"]}, "must be on one line"),
        ({"notify": ["a\x00b"]}, "must be on one line"),
        ({"environments": [""]}, "at least 1 character"),
        ({"services": ["x" * 201]}, "at most 200 characters"),
        ({"runbook": "wiki"}, "must be a URL"),
        ({"runbook": "https://a@b/c"}, "user name"),
        ({"runbook": "https://b/c#d"}, "must end before any"),
        ({"runbook": "https://b/{{{c}}}"}, "must not have '{'"),
        ({"runbook": "https://b/<script>"}, "must not have '<'"),
        ({"runbook": "https://b/\u00fc"}, "must not have"),
        ({"recipients": ["a"]}, "not permitted"),
    ],
)
def test_not_alerts(written: dict[str, object], says: str) -> None:
    """An unknown id, a threshold that there is none of, or text that a message cannot bear is refused."""
    with pytest.raises(ValidationError, match=says):
        Alerts.model_validate(written)


def test_without_accounts_only_two_sections_count(tmp_path: Path) -> None:
    """Where no key is, its variable may be missing; a mistake in the section that counts may not."""
    file = tmp_path / "exporter.yaml"
    others = "accounts: [{key_id: '${A}', name: 1}]\nlog: {level: '${B}'}\nlimits: {key_share: 7}\n"
    file.write_text(others + "alerts: {disabled: [DataStale]}\nschedule: {poll: 0 3 * * *}")
    settings = load_without_accounts(file, {})
    assert (settings.alerts.disabled, settings.schedule.poll) == (("DataStale",), "0 3 * * *")
    assert (settings.accounts, settings.limits) == ((), Limits())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alerts: {disabled: ['${A}']}", "needs the environment variable A"),
        ("alerts: {disable: [DataStale]}", "alerts.disable is not a setting. Did you mean disabled?"),
        ("alert: {disabled: [DataStale]}", "alert is not a setting. Did you mean alerts?"),
        (
            "alerts: {disabled: [Datastale]}",
            "alerts.disabled[0] must be the id of an alert; did you mean DataStale",
        ),
        ("alerts: {disabled: [DataStale], disabled: []}", "alerts.disabled is given twice"),
        ("schedule: {poll: '1 2 3'}", "schedule.poll must have five fields"),
        ("[a]", "the file must be a mapping"),
    ],
)
def test_mistakes_that_count_without_accounts(tmp_path: Path, text: str, says: str) -> None:
    """They are told as everywhere, each with its place."""
    file = tmp_path / "exporter.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_without_accounts(file, {})
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)
