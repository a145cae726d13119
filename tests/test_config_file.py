"""The way from file and environment to settings, and what is said when something is wrong on it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, get_args

import hypothesis
import jsonschema
import pytest
import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from exporter.errors import ConfigError
from exporter.settings import Account, Otlp, Schedule, Settings, json_schema, load

EXAMPLE = Path(__file__).parents[1] / "config" / "exporter.yaml"
ACCOUNT = {"ASC_KEY_ID": "KEY1", "ASC_ISSUER_ID": "issuer", "ASC_PRIVATE_KEY": "hush-hush"}
TWO = """\
accounts:
  - {name: a, key_id: A, private_key: hush-hush}
  - {name: b, key_id: B, private_key: hush-hush, apps: [com.example.b]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "exporter.yaml"


def settings(file: Path, text: str, **environ: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return load(file, {**ACCOUNT, **environ})


def refusal(file: Path, text: str | bytes, **environ: str) -> str:
    """The error of a configuration that must be refused, which never holds a secret."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load(file, {**ACCOUNT, **environ})
    message = str(caught.value)
    assert "hush" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message.replace(str(file), "FILE")


# The file


def test_text_stays_text(file: Path) -> None:
    """What YAML would take for a boolean, a number or a date is text where the setting is text."""
    found = settings(
        file,
        "accounts: [{key_id: 0123, name: no, private_key: x, apps: [1234567890], environment: 2026-01-01}]",
    )
    account = found.accounts[0]
    assert (account.key_id, account.name, account.environment) == ("0123", "no", "2026-01-01")
    assert account.apps.include == ("1234567890",)


def test_listener_off(file: Path) -> None:
    """`off` without quotes is the word, not false."""
    assert settings(file, "http: {listen: off}").http.address is None


def test_empty_sections_have_their_defaults(file: Path) -> None:
    """A section with all its keys commented out is as good as none."""
    assert settings(file, "collect:\nlog: ~\naccounts:\notlp: {endpoint: null}") == load(None, ACCOUNT)


def test_anchors(file: Path) -> None:
    """An alias repeats what its anchor holds."""
    found = settings(file, "collect: {categories: &all ['H*'], devices: *all}")
    assert found.collect.devices == ("H*",)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("${A}", "one"),
        ("x-${A}-${B:-two}", "x-one-two"),
        ("${EMPTY:-two}", "two"),
        ("${A:-two}", "one"),
        ("$${A}", "${A}"),
        ("$A {A}", "$A {A}"),
        ("'${A}'", "one"),
        ("${B:-a: [b]}", "a: [b]"),
    ],
)
def test_references(file: Path, written: str, found: str) -> None:
    """References are replaced as in a shell, and $${ is a plain ${."""
    value = written if written.startswith("'") else f'"{written}"'
    text = f"accounts: [{{key_id: {value}, private_key: x}}]"
    assert settings(file, text, A="one", EMPTY="").accounts[0].key_id == found


def test_references_cannot_inject_yaml(file: Path) -> None:
    """A variable's value stays one value, whatever it looks like."""
    hostile = "x\n    environment: evil\n# ${B}"
    found = settings(file, "accounts:\n  - key_id: ${A}\n    private_key: x", A=hostile, B="b")
    assert found.accounts[0].key_id == hostile
    assert found.accounts[0].environment == "production"


def test_reference_in_a_number(file: Path) -> None:
    """A reference may stand for a number, a flag or a duration."""
    text = "collect: {builds: '${N}'}\nschedule: {jitter: '${J:-1h}', poll_at_start: '${P:-no}'}"
    found = settings(file, text, N="3")
    assert (found.collect.builds, found.schedule.jitter, found.schedule.poll_at_start) == (3, 3600, False)


@pytest.mark.parametrize("written", ["${A", "${}", "${A-b}", "${A:?b}", "${1A}", "${A:-${B}}", "${a b}"])
def test_malformed_reference(file: Path, written: str) -> None:
    """A reference that no shell rule covers is refused with its line and key."""
    message = refusal(file, f"log:\n  level: '{written}'")
    assert message.startswith("FILE:2: log.level has a ${ that cannot be read. Write ${NAME}")


def test_missing_variable(file: Path) -> None:
    """A reference to nothing names variable, file, line and key, once."""
    message = refusal(file, "collect:\n  builds: ${NOWHERE}")
    assert message == (
        "FILE:2: collect.builds needs the environment variable NOWHERE, which is not set. "
        "Set it, or write ${NOWHERE:-default}."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "FILE: the file is empty. config/exporter.yaml is a commented example."),
        (b"# nothing\n", "FILE: the file is empty."),
        (b"- a", "FILE: the file must be a mapping"),
        (b"text", "FILE: the file must be a mapping"),
        (b"log:\n  level: \xff", "FILE:2: the file is not UTF-8."),
        ("log:".encode("utf-16"), "FILE:1: the file is not UTF-8."),
        (b"#" * 1_048_577, "FILE: the configuration file is larger than 1 MiB."),
        (b"log:\n\tlevel: info", "FILE:2: the YAML cannot be read"),
        (b"a: {b: hush-hush", "FILE:1: the YAML cannot be read"),
        (b"a: 'hush-hush", "FILE:1: the YAML cannot be read"),
        (b"a: *hush", "must stand in quotes."),
        (b"accounts: [{key_id: a, private_key: x, apps: [*]}]", "must stand in quotes."),
        (b"a: 1\n---\nb: 1", "FILE:2: the YAML cannot be read: expected a single document"),
        (b"log: \0", "FILE: the YAML has a character that YAML does not allow."),
        (b"[" * 1000, "FILE:1: the YAML cannot be read: nested too deeply."),
        (b"a: [" + b"b," * 60_000 + b"]", "FILE:1: the YAML cannot be read: too many values."),
        (b"a: &a [*a]", "FILE:1: the YAML is too large once its aliases are written out."),
        (b"a: &a {b: *a}", "FILE:1: the YAML is too large once its aliases are written out."),
        (b"log: {level: info}\nlog: {level: debug}", "FILE:2: log is given twice. Keep one of them."),
        (b"<<: {log: {level: debug}}", "FILE:1: has a key that is no name."),
        (b"? [a]\n: b", "FILE:1: has a key that is no name."),
        (b'collect:\n  categories: ["*", !HANG ]', "FILE:2: collect.categories[1] has a YAML tag"),
        (
            b"log: !!python/object/apply:os.system [hush]",
            "FILE:1: log has a YAML tag, which no setting uses.",
        ),
    ],
)
def test_file_that_is_no_configuration(file: Path, text: bytes, said: str) -> None:
    """Whatever is in the file, the error says where and what, and never repeats the text around it."""
    assert said in refusal(file, text)


def test_alias_bomb(file: Path) -> None:
    """Aliases that multiply are refused before they fill the memory."""
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10))
    assert "too large once its aliases" in refusal(file, f"l0: &l0 [x]\n{levels}")


def test_byte_order_mark(file: Path) -> None:
    """A byte order mark at the beginning is no part of the first key."""
    file.write_bytes(b"\xef\xbb\xbflog: {level: debug}")
    assert load(file, ACCOUNT).log.level == "debug"


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a directory are named, by argument and by PERFPOWER_CONFIG."""
    for path, reason in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigError, match=reason) as caught:
            load(path, {})
        assert caught.value.where == str(path)
        with pytest.raises(ConfigError, match=reason):
            load(None, {"PERFPOWER_CONFIG": str(path)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("collect:\n  biulds: 3", "FILE:2: collect.biulds is not a setting. Did you mean builds?"),
        ("zzz: 3", "FILE:1: zzz is not a setting. Known here: accounts, schedule,"),
        (
            "log:\n  level: loud",
            "FILE:2: log.level must be one of 'debug', 'info', 'warning' or 'error' (it is 'loud').",
        ),
        ("collect: {builds: many}", "FILE:1: collect.builds must be a whole number (it is 'many')."),
        ("collect: {builds: 51}", "FILE:1: collect.builds must be less than or equal to 50."),
        ("collect: 3", "FILE:1: collect must be a mapping: keys with values."),
        ("collect: {devices: all}", "FILE:1: collect.devices must be a list"),
        ("schedule: {poll_at_start: maybe}", "must be true or false (it is 'maybe')."),
        ("schedule: {heartbeat: soon}", "FILE:1: schedule.heartbeat must be a duration such as 90s"),
        ("limits:\n  key_share: 0", "FILE:2: limits.key_share must be greater than 0."),
        ("limits: {key_share: .nan}", "FILE:1: limits.key_share must be a"),
        ("accounts:\n  -\n    name: x", "accounts[0].key_id is missing. Key id, shown beside the key"),
        ("accounts: {key_id: x}", "FILE:1: accounts must be a list"),
        ("accounts: [x]", "FILE:1: accounts[0] must be a mapping"),
        ("accounts:\n  - key_id: x", "FILE:2: accounts[0] has neither private_key nor private_key_file"),
        (
            "accounts:\n  - key_id: x\n    private_key: [hush]",
            "FILE:3: accounts[0].private_key must be text.",
        ),
        (
            TWO.replace("name: b", "name: a"),
            "FILE:1: accounts must have different names; more than one is called a.",
        ),
        (TWO + "    biulds: 1\n", "FILE"),
        ("otlp: {headers: hush}", "FILE:1: otlp.headers must be a mapping"),
        ("otlp:\n  headers:\n    a: {b: hush}", "FILE:3: otlp.headers.a must be text."),
        ("otlp:\n  headers:\n    a:", "FILE:3: otlp.headers.a must be text."),
        (
            "otlp: {endpoint: 'http://hush:hush@c'}",
            "FILE:1: otlp.endpoint must not carry a user name or password.",
        ),
        ("otlp: {protocol: http/json}", "cannot be http/json; use http/protobuf"),
        (
            "accounts:\n  - key_id: x\n    private_key: x\n    base_url: http://hush:8080",
            "FILE:4: accounts[0].base_url must be an https URL: a bearer token is sent there, and plain http "
            "is safe only to this machine itself (localhost, 127.0.0.1, [::1]).",
        ),
        ("accounts: [{key_id: a, private_key: x, apps: [[a]]}]", "accounts[0].apps.include[0] must be text."),
        ("accounts: [{key_id: a, private_key: x, apps: {inclde: [a]}}]", "Did you mean include?"),
        (f"? {'k' * 100}\n: 1", f"FILE:1: {'k' * 60}… is not a setting."),
    ],
)
def test_setting_that_is_wrong(file: Path, text: str, said: str) -> None:
    """An error names line and key, what is wrong, and what would be right."""
    assert said in refusal(file, text)


def test_value_from_a_variable_is_not_repeated(file: Path) -> None:
    """A wrong value that came from a variable, which may hold a secret, is named by the variable."""
    message = refusal(file, "log:\n  level: ${LEVEL}", LEVEL="hush-hush")
    assert message.startswith("FILE:2 (from LEVEL): log.level must be one of")


def test_all_mistakes_at_once(file: Path) -> None:
    """Every mistake is reported, from file and environment, each on its line."""
    text = "collect:\n  biulds: 3\nlog:\n  level: ${NOWHERE}\n  format: ${NOWHERE2}\n"
    message = refusal(
        file, text, PERFPOWER__HTTP__LISTEN="x", PERFPOWER__LOG__LEVLE="x", OTEL_EXPORTER_OTLP_TIMEOUT="x"
    )
    first, *lines = message.splitlines()
    assert first == "6 things are wrong with the configuration:"
    assert [line.split(": ")[0] for line in lines] == [
        "- FILE:4",
        "- FILE:5",
        "- OTEL_EXPORTER_OTLP_TIMEOUT",
        "- PERFPOWER__LOG__LEVLE",
        "- FILE:2",
        "- PERFPOWER__HTTP__LISTEN",
    ]


# The environment


def test_account_from_the_environment() -> None:
    """With no file three variables make an account; ASC_APPS is a list with commas."""
    environ = {**ACCOUNT, "ASC_APPS": "com.example.a, 123 ,", "ASC_BASE_URL": "http://localhost:1/"}
    (account,) = load(None, environ).accounts
    assert (account.name, account.key_id, account.issuer_id) == ("main", "KEY1", "issuer")
    assert account.apps.include == ("com.example.a", "123")
    assert account.base_url == "http://localhost:1"


def test_empty_variables_count_as_unset() -> None:
    """An empty variable is as good as none, of every kind."""
    empty = (
        "ASC_PRIVATE_KEY_FILE",
        "ASC_APPS",
        "PERFPOWER_CONFIG",
        "PERFPOWER_STATE",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    )
    environ = {**ACCOUNT, **dict.fromkeys((*empty, "PERFPOWER__LOG__LEVEL", "PERFPOWER__NONSENSE"), "")}
    assert load(None, environ) == load(None, ACCOUNT)


def test_accounts_of_the_file_keep_the_environment_out(file: Path) -> None:
    """ASC_* is for those who name no account elsewhere."""
    assert [account.key_id for account in settings(file, TWO).accounts] == ["A", "B"]
    named = {"PERFPOWER__ACCOUNTS__0__KEY_ID": "C", "PERFPOWER__ACCOUNTS__0__PRIVATE_KEY_FILE": "c.p8"}
    (account,) = load(None, {**ACCOUNT, **named}).accounts
    assert (account.key_id, account.issuer_id) == ("C", None)


def test_override_beside_the_account_of_the_environment() -> None:
    """Another setting of the account is overridden without naming the account anew."""
    (account,) = load(None, {**ACCOUNT, "PERFPOWER__ACCOUNTS__0__ENVIRONMENT": "staging"}).accounts
    assert (account.key_id, account.environment) == ("KEY1", "staging")


@pytest.mark.parametrize("environ", [{}, {"ASC_BASE_URL": "http://localhost:1", "ASC_APPS": "a"}])
def test_no_account(environ: dict[str, str]) -> None:
    """A newcomer is told the variables to set, and the way without an account."""
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    for word in ("ASC_ISSUER_ID", "ASC_KEY_ID", "ASC_PRIVATE_KEY", "run --sandbox"):
        assert word in str(caught.value)


def test_half_an_account() -> None:
    """An account that lacks something says what, and which variable gives it."""
    with pytest.raises(ConfigError, match=r"accounts\[0\] has neither .*ASC_PRIVATE_KEY"):
        load(None, {"ASC_KEY_ID": "K"})
    with pytest.raises(ConfigError, match=r"accounts\[0\].key_id is missing.*ASC_KEY_ID"):
        load(None, {"ASC_ISSUER_ID": "I", "ASC_PRIVATE_KEY": "x"})


def test_precedence(file: Path) -> None:
    """PERFPOWER__ before OTEL_* and PERFPOWER_STATE, before the file, before the defaults."""
    file.write_text("otlp: {timeout: 1s}\nstate: {path: file.db}")
    environ = dict(ACCOUNT)
    assert load(file, environ).otlp.timeout == 1
    environ |= {"OTEL_EXPORTER_OTLP_TIMEOUT": "2000", "PERFPOWER_STATE": "variable.db"}
    assert load(file, environ).otlp.timeout == 2
    assert load(file, environ).state.path == Path("variable.db")
    environ |= {"OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "2500"}
    assert load(file, environ).otlp.timeout == 2.5
    environ |= {"PERFPOWER__OTLP__TIMEOUT": "4s", "PERFPOWER__STATE__PATH": "override.db"}
    assert load(file, environ).otlp.timeout == 4
    assert load(file, environ).state.path == Path("override.db")


def test_opentelemetry_variables() -> None:
    """The variables mean what the OpenTelemetry specification says."""
    found = load(
        None,
        ACCOUNT
        | {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317",
            "OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%20b%2Cc, x=y=z,",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "key.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "cert.pem",
            "OTEL_EXPORTER_OTLP_INSECURE": "True",
        },
    ).otlp
    assert (found.protocol, found.metrics_url, found.compression, found.insecure) == (
        "grpc",
        "collector:4317",
        "none",
        True,
    )
    assert {name: value.get_secret_value() for name, value in found.headers.items()} == {
        "api-key": "a b,c",
        "x": "y=z",
    }
    assert (found.certificate, found.client_key, found.client_certificate) == (
        Path("ca.pem"),
        Path("key.pem"),
        Path("cert.pem"),
    )


def test_metrics_variables_win_over_the_general_ones() -> None:
    """A variable for metrics replaces the general one, headers as a whole."""
    general = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_EXPORTER_OTLP_HEADERS": "a=1,b=2"}
    special = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/x",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "a=3",
    }
    found = load(None, ACCOUNT | general | special).otlp
    assert (found.metrics_url, list(found.headers)) == ("http://m/x", ["a"])


def test_target_of_a_variable_outranks_the_file(file: Path) -> None:
    """An endpoint named by a variable is not shadowed by a metrics endpoint of lower rank."""
    file.write_text("otlp: {metrics_endpoint: 'http://file/x'}")
    environ = ACCOUNT | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://variable"}
    assert load(file, environ).otlp.metrics_url == "http://variable/v1/metrics"
    environ |= {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://metrics/x",
        "PERFPOWER__OTLP__ENDPOINT": "http://own",
    }
    assert load(file, environ).otlp.metrics_url == "http://own/v1/metrics"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "must be a whole number of milliseconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "9" * 5000, "must be a whole number of milliseconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "must be greater than 0"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "hush", "must be name=value pairs"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=hush,A=hush", "must be name=value pairs"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=hush%0d%0ab: c", "must have header values"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "use http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "deflate", "must be one of 'gzip' or 'none'"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "hush", "must be true or false"),
        ("PERFPOWER__LOG__LEVEL", "hush", "must be one of"),
        ("PERFPOWER__LOG__LEVEL", "\udcff", "must be UTF-8 text"),
        ("PERFPOWER__COLLECT__BUILDS", "hush", "must be a whole number"),
        ("PERFPOWER__COLLECT__BIULDS", "1", "there is no such setting. Did you mean BUILDS?"),
        ("PERFPOWER__ZZZ__A", "1", "there is no such setting. Known: ACCOUNTS"),
        ("PERFPOWER__", "1", "there is no such setting"),
        ("PERFPOWER__LOG__LEVEL__DEEPER", "1", "there is no setting below this one"),
        ("PERFPOWER__OTLP__HEADERS__A", "hush", "a key of this mapping cannot be set alone"),
        ("PERFPOWER__OTLP__HEADERS", "[hush", "the YAML cannot be read"),
        ("PERFPOWER__OTLP__HEADERS", "hush", "must be a mapping"),
        ("PERFPOWER__COLLECT__DEVICES", "all", "must be a list"),
        ("PERFPOWER__COLLECT__DEVICES", "[" * 5000, "nested too deeply"),
        ("PERFPOWER__COLLECT__DEVICES", '["*", !hush ]', "collect.devices[1] has a YAML tag"),
        ("PERFPOWER__LOG", "{level: info, level: debug}", "log.level is given twice"),
        ("PERFPOWER__COLLECT", "\udcff", "a character that YAML does not allow"),
        ("PERFPOWER__ACCOUNTS__2__NAME", "x", "there is no item 2, the list has 1. Use an index up to 1."),
        ("PERFPOWER__ACCOUNTS__MAIN__NAME", "x", "a list needs a number here"),
        ("PERFPOWER__ACCOUNTS__0__PRIVATE_KEY_FILE", "hush.p8", "accounts[0] has both private_key and"),
    ],
)
def test_variable_that_is_wrong(variable: str, value: str, said: str) -> None:
    """An error names the variable, says what would be right, and does not repeat the value."""
    with pytest.raises(ConfigError) as caught:
        load(None, {**ACCOUNT, variable: value})
    message = str(caught.value)
    assert variable in message or "ASC_*" in message
    assert said in message
    assert "hush" not in message


def test_override_values(file: Path) -> None:
    """Lists and mappings are given as YAML, all else as text that stands for itself."""
    found = settings(
        file,
        TWO,
        PERFPOWER__ACCOUNTS__1__KEY_ID="0123",
        PERFPOWER__ACCOUNTS__1__ENVIRONMENT="{a: [b]}",
        PERFPOWER__ACCOUNTS__1__PRIVATE_KEY="-----BEGIN\nx: y",
        PERFPOWER__COLLECT__CATEGORIES='[LAUNCH, "!HANG"]',
        PERFPOWER__COLLECT__DEVICES__0="all_*",
        PERFPOWER__OTLP__HEADERS="{Authorization: '${NOT_A_REFERENCE}'}",
        PERFPOWER__LOG="{level: debug}",
        PERFPOWER__LOG__FORMAT="json",
    )
    key = found.accounts[1].private_key
    assert key is not None
    assert key.get_secret_value() == "-----BEGIN\nx: y"
    assert (found.accounts[1].key_id, found.accounts[1].environment) == ("0123", "{a: [b]}")
    assert (found.collect.categories, found.collect.devices) == (("LAUNCH", "!HANG"), ("all_*",))
    assert found.otlp.headers["authorization"].get_secret_value() == "${NOT_A_REFERENCE}"
    assert (found.log.level, found.log.format) == ("debug", "json")
    assert found.accounts[0].name == "a"


def test_override_appends_to_a_list(file: Path) -> None:
    """The index after the last adds an item, in the order of the numbers."""
    added = {f"PERFPOWER__COLLECT__DEVICES__{index}": f"d{index}" for index in reversed(range(12))}
    assert settings(file, TWO, **added).collect.devices == tuple(f"d{index}" for index in range(12))


def test_override_of_an_item(file: Path) -> None:
    """An item of a list is replaced by its index; the others stay."""
    text = "collect: {devices: [a, b, c]}"
    assert settings(file, text, PERFPOWER__COLLECT__DEVICES__1="x").collect.devices == ("a", "x", "c")


def test_override_makes_good_what_the_file_lacks(file: Path) -> None:
    """A reference to nothing does no harm where a variable gives the value."""
    text = "accounts: [{key_id: '${NOWHERE}', private_key: x}]"
    assert settings(file, text, PERFPOWER__ACCOUNTS__0__KEY_ID="K").accounts[0].key_id == "K"


def test_mistake_in_an_override_is_not_laid_to_the_file(file: Path) -> None:
    """A mistake below a replaced value is the variable's, although the file has a line for the same key."""
    message = refusal(file, "otlp:\n  headers:\n    a: b", PERFPOWER__OTLP__HEADERS="{a: [hush]}")
    assert message == "PERFPOWER__OTLP__HEADERS: otlp.headers.a must be text."


def test_override_beside_a_short_list_of_apps(file: Path) -> None:
    """Excluding an app by variable keeps the file's list of those to include."""
    apps = settings(file, TWO, PERFPOWER__ACCOUNTS__1__APPS__EXCLUDE="[x]").accounts[1].apps
    assert (apps.include, apps.exclude) == (("com.example.b",), ("x",))


def test_override_of_a_part_replaces_what_cannot_hold_it(file: Path) -> None:
    """An override below a value of the wrong kind takes its place."""
    assert (
        settings(
            file,
            "collect: {devices: all}\nlog: [x]",
            PERFPOWER__COLLECT__DEVICES__0="a",
            PERFPOWER__LOG__LEVEL="error",
        ).log.level
        == "error"
    )


def test_whole_list_then_its_items(file: Path) -> None:
    """An override of a part is laid over the override of the whole."""
    whole = "[{key_id: N, private_key_file: n.p8}]"
    (account,) = settings(file, TWO, PERFPOWER__ACCOUNTS=whole, PERFPOWER__ACCOUNTS__0__NAME="new").accounts
    assert (account.key_id, account.name) == ("N", "new")


def test_variables_of_others_are_left_alone() -> None:
    """Variables that only look alike, such as Kubernetes makes for a service, are no settings."""
    assert load(None, ACCOUNT | {"PERFPOWER_PORT": "tcp://1.2.3.4:1", "OTEL_SERVICE_NAME": "x"}) == load(
        None, ACCOUNT
    )


# Anything at all

NAMES = st.sampled_from(
    [*Settings.model_fields, *Account.model_fields, *Schedule.model_fields, *Otlp.model_fields]
)
VALUES = st.recursive(
    st.none()
    | st.text(max_size=12)
    | st.floats()
    | st.integers()
    | st.sampled_from(["${A}", "${B:-x}", "1h", "*"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def tried(path: Path | None, environ: dict[str, str]) -> None:
    """Load, where a ConfigError is as good as settings and anything else is not."""
    with contextlib.suppress(ConfigError):
        assert isinstance(load(path, environ), Settings)


@hypothesis.given(st.dictionaries(NAMES, VALUES, max_size=4))
@hypothesis.settings(deadline=None, database=None)
def test_any_document(tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]) -> None:
    """Whatever YAML the file holds, the result is settings or a ConfigError."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=False), encoding="utf-8")
    tried(path, {**ACCOUNT, "A": "a"})


@hypothesis.given(st.binary(max_size=60))
@hypothesis.settings(deadline=None, database=None)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever bytes the file holds, the result is settings or a ConfigError."""
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    tried(path, ACCOUNT)


@hypothesis.given(
    st.lists(NAMES.map(str.upper) | st.sampled_from(["0", "1", "", "X"]), min_size=1, max_size=4),
    st.text(max_size=30),
)
@hypothesis.settings(deadline=None, database=None)
def test_any_override(steps: list[str], value: str) -> None:
    """Whatever an override is called and says, the result is settings or a ConfigError."""
    tried(None, {**ACCOUNT, f"PERFPOWER__{'__'.join(steps)}": value, "OTEL_EXPORTER_OTLP_HEADERS": value})


# The example


def test_example_is_the_defaults() -> None:
    """The commented file as it stands, with three variables set, changes nothing."""
    assert load(EXAMPLE, ACCOUNT) == load(None, ACCOUNT)


def test_example_is_valid_by_the_schema() -> None:
    """An editor that knows the schema marks nothing in the example."""
    jsonschema.Draft202012Validator(json_schema()).validate(
        yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    )


def _missing(model: type[BaseModel], part: Any, where: str) -> list[str]:
    """The settings of a model that do not appear in a part of the file."""
    found: list[str] = []
    for name, about in model.model_fields.items():
        if name not in part:
            found.append(f"{where}{name}")
            continue
        value = part[name][0] if name == "accounts" else part[name]
        inner = get_args(about.annotation)[0] if name == "accounts" else about.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _missing(inner, value, f"{where}{name}.")
    return found


def test_example_shows_every_setting() -> None:
    """A newcomer finds each setting in the example."""
    assert _missing(Settings, yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), "") == []


def test_example_without_variables() -> None:
    """The example alone says which variables it wants."""
    with pytest.raises(ConfigError, match="needs the environment variable ASC_KEY_ID"):
        load(EXAMPLE, {})


def test_the_process_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the mapping that is handed in counts."""
    monkeypatch.setitem(os.environ, "PERFPOWER__LOG__LEVEL", "debug")
    assert load(None, ACCOUNT).log.level == "info"
