"""Several exporters with one configuration: which accounts each of them polls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import ConfigError
from exporter.sandbox import AppStoreSandbox, Sandbox
from exporter.settings import Account
from exporter.sharding import Shard, divide, parse
from tests.service.service_world import LESS, command, ended, running, terminate, wait_until


def account(name: str, key_id: str = "") -> Account:
    return Account(name=name, key_id=key_id or f"key of {name}", private_key_file=Path("key.p8"))


def places(accounts: Sequence[Account], count: int) -> dict[str, int]:
    """Account → the index of its shard; fails where an account is in none or in several."""
    found = [
        (mine.name, index) for index in range(count) for mine in divide(accounts, Shard(index, count))[0]
    ]
    assert sorted(name for name, _ in found) == sorted(one.name for one in accounts)
    return dict(found)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs"]), min_size=1, max_size=12)
ACCOUNTS = st.dictionaries(NAMES, st.sampled_from("ABCDE"), max_size=12).map(
    lambda keys: [account(name, key) for name, key in keys.items()]
)
COUNTS = st.integers(1, 12)
MANY = [account(f"team-{number}") for number in range(2000)]


@given(ACCOUNTS, COUNTS)
def test_each_account_is_in_exactly_one_shard(accounts: list[Account], count: int) -> None:
    """None is forgotten, none is polled twice; what is not ours is told as being elsewhere."""
    places(accounts, count)
    for index in range(count):
        ours, others = divide(accounts, Shard(index, count))
        assert sorted((*ours, *others), key=accounts.index) == accounts


@given(ACCOUNTS, COUNTS)
def test_accounts_with_the_same_key_stay_together(accounts: list[Account], count: int) -> None:
    """The key's hour is one budget, which only one state file can keep."""
    found = places(accounts, count)
    assert len({(one.key_id, found[one.name]) for one in accounts}) == len({one.key_id for one in accounts})


@given(ACCOUNTS, COUNTS)
def test_one_more_shard_moves_accounts_to_itself_only(accounts: list[Account], count: int) -> None:
    """Nothing moves between the shards that there were."""
    before, after = places(accounts, count), places(accounts, count + 1)
    assert all(after[name] in (before[name], count) for name in before)


@given(ACCOUNTS, COUNTS, st.randoms(use_true_random=False))
def test_the_order_of_the_accounts_does_not_matter(accounts: list[Account], count: int, dice: Random) -> None:
    """A configuration that is sorted anew moves nothing."""
    shuffled = [*accounts]
    dice.shuffle(shuffled)
    assert places(shuffled, count) == places(accounts, count)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_one_more_shard_takes_its_part_and_no_more(count: int) -> None:
    """About one account in n+1 moves, and each shard has about as many as the others."""
    before, after = places(MANY, count), places(MANY, count + 1)
    part = len(MANY) / (count + 1)
    assert sum(before[name] != after[name] for name in before) == pytest.approx(part, rel=0.15)
    assert all(size == pytest.approx(part, rel=0.15) for size in Counter(after.values()).values())


def test_a_renewed_key_moves_nothing() -> None:
    """What is stored goes by the account's name; a new key must not leave it behind."""
    renewed = [account(one.name, f"new {one.key_id}") for one in MANY[:100]]
    assert places(renewed, 5) == places(MANY[:100], 5)


def test_another_version_of_the_exporter_divides_in_the_same_way() -> None:
    """These places never change: an upgrade must not move accounts between state files."""
    accounts = [account(name) for name in ("main", "games", "Ünïcode ☂")]
    assert places(accounts, 2) == {"main": 1, "games": 0, "Ünïcode ☂": 0}
    assert places(accounts, 12) == {"main": 6, "games": 10, "Ünïcode ☂": 3}


@pytest.mark.parametrize(
    ("text", "shard"), [("0/1", Shard(0, 1)), ("2/3", Shard(2, 3)), ("00/10", Shard(0, 10))]
)
def test_a_shard_is_read(text: str, shard: Shard) -> None:
    """i/n, counted from 0 as the pods of a StatefulSet are."""
    assert parse(text, "--shard") == shard


@pytest.mark.parametrize(
    "text",
    ["", "1", "/3", "1/", "3/3", "0/0", "-1/3", "1/3/5", "1 / 3", "½/3", "٠/٣", "1/99999", "0/3\n", "a/b"],
)
def test_a_shard_that_does_not_exist_is_refused(text: str) -> None:
    """With the place it came from, and what it looks like when it is right."""
    with pytest.raises(ConfigError, match=r"^PERFPOWER_SHARD: must be i/n, .* 0/3, 1/3 and 2/3\.$"):
        parse(text, "PERFPOWER_SHARD")


def test_a_refusal_repeats_numbers_and_nothing_else() -> None:
    """A number is a hint; anything else may be a secret that got into the wrong variable."""
    with pytest.raises(ConfigError, match=r"\(it is '3/3'\)"):
        parse("3/3", "--shard")
    with pytest.raises(ConfigError) as refused:
        parse("hush-hush", "--shard")
    assert "hush" not in str(refused.value)


class Runs:
    """Commands between both ends, which have one account, `main`."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.ours = next(f"{index}/2" for index in range(2) if divide([account("main")], Shard(index, 2))[0])
        self.others = {"0/2": "1/2", "1/2": "0/2"}[self.ours]

    def environ(self, **more: str) -> dict[str, str]:
        state = {"PERFPOWER_STATE": str(self.folder / "state.db"), "ASC_APPS": "com.example.harbour"}
        return {**self.sandbox.environ(), **LESS, **state, **more}

    def __call__(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        done = ended(command(*arguments), self.environ(**more), self.folder)
        return done.returncode, done.stdout, done.stderr

    def asked(self) -> int:
        return len(self.sandbox.appstore.requests)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runs]:
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0)) as sandbox:
        yield Runs(tmp_path, sandbox)


def line(log: str, event: str) -> dict[str, object]:
    (found,) = (fields for text in log.splitlines() if (fields := json.loads(text))["event"] == event)
    return dict(found)


def test_a_shard_polls_its_accounts_and_says_which(run: Runs) -> None:
    """From the option or the variable; the option wins."""
    status, _, log = run("once", "--shard", run.ours, PERFPOWER_SHARD=run.others)
    assert status == 0
    assert run.asked() > 0
    told = line(log, "shard")
    assert (told["level"], told["shard"], told["accounts"], told["elsewhere"]) == (
        "info",
        run.ours,
        ["main"],
        [],
    )


def test_a_shard_without_an_account_asks_nothing_and_is_no_failure(run: Runs) -> None:
    """It says so; an empty variable is no shard at all."""
    status, _, log = run("once", PERFPOWER_SHARD=run.others)
    assert (status, run.asked()) == (0, 0)
    told = line(log, "shard")
    assert (told["level"], told["accounts"], told["elsewhere"]) == ("warning", [], ["main"])
    assert "shard" not in run("once", PERFPOWER_SHARD="")[2]
    assert run.asked() > 0


def test_a_shard_without_an_account_stays_alive_and_ready(run: Runs) -> None:
    """Kubernetes has nothing to restart, and nobody is called at night."""
    output = run.folder / "log"
    environ = run.environ(PERFPOWER__HTTP__LISTEN="127.0.0.1:0", PERFPOWER_SHARD=run.others)
    with running(command("run"), environ, output) as process:
        wait_until(lambda: '"started"' in output.read_text())
        url = line(output.read_text(), "started")["health"]
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        assert httpx.get(f"{url}/livez").status_code == 200
        assert terminate(process) == 0
    assert run.asked() == 0


def test_what_an_account_owes_is_delivered_after_it_has_moved(run: Runs) -> None:
    """The state file that owes it sends it, though another shard polls the account now."""
    elsewhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{run.sandbox.receiver.url}/nowhere"}
    assert run("once", "--shard", run.ours, **elsewhere)[0] == 1
    asked = run.asked()
    status, _, log = run("once", "--shard", run.others)
    assert (status, run.asked()) == (0, asked)
    assert run.sandbox.receiver.distinct_histograms()
    assert line(log, "delivery")["owed"] == 0


@pytest.mark.parametrize("name", ["run", "once", "check", "plan"])
@pytest.mark.parametrize("text", ["2/2", ""])
def test_a_bad_shard_is_a_configuration_error(run: Runs, name: str, text: str) -> None:
    """A sentence and status 2 before anything is read; an empty option would else mean all accounts."""
    status, out, err = run(name, "--shard", text)
    assert (status, out, run.asked()) == (2, "", 0)
    assert err.startswith("error: --shard: must be i/n")


def test_a_bad_variable_is_named(run: Runs) -> None:
    """As when Kubernetes has no index to put in."""
    assert run("once", PERFPOWER_SHARD="/3")[2].startswith("error: PERFPOWER_SHARD: must be i/n")


def test_check_and_plan_look_at_the_shard(run: Runs) -> None:
    """Where a shard is set for a container, a look from inside shows what that container does."""
    for name in ("check", "plan"):
        status, out, _ = run(name, PERFPOWER_SHARD=run.others)
        assert (status, run.asked()) == (0, 0)
        assert out.splitlines()[0] == f"shard {run.others}: nothing; elsewhere: main"
    assert run("plan", "--shard", run.ours)[1].startswith(f"shard {run.ours}: main; elsewhere: nothing\n")
    assert run.asked() > 0


def test_the_sandbox_is_not_divided(run: Runs) -> None:
    """It has a configuration of its own."""
    status, _, err = run("run", "--sandbox", "--shard", "0/2")
    assert status == 2
    assert "leave --shard out" in err
