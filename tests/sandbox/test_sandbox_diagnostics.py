from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from exporter.sandbox.builds import SandboxBuild
from exporter.sandbox.diagnostics import SandboxLog, SandboxSignature
from exporter.sandbox.measurements import measured
from exporter.sandbox.problems import Problem, problem, shares
from exporter.sandbox.store import Store
from exporter.sandbox.tables import APPS, UNHEARD_OF

Json = dict[str, Any]
BANK, NOTES, TRAILS = (app.id for app in APPS)
DAYS = range(60)
AWKWARD = {
    "no metadata",
    "empty metadata",
    "no tree",
    "no tree in the list",
    "no stack in the tree",
    "no frame in the stack",
    "tree as an object",
    "no sample counts",
    "no number",
    "unknown fields",
    "per thread",
    "deep",
}


def newest(app_id: str, day: int, count: int = 3) -> list[SandboxBuild]:
    """The builds on the store, newest first."""
    return [build for build in Store().builds(app_id, day) if build.store_state][:count]


def signatures_on(app_id: str, day: int) -> dict[str, SandboxSignature]:
    listed = (Store().signatures(build.id, day) for build in newest(app_id, day))
    return {signature.id: signature for each in listed for signature in each}


@cache
def everything() -> tuple[tuple[SandboxSignature, SandboxLog], ...]:
    """All logs that anyone could have seen in the first sixty days, in the newest version of each app."""
    found: dict[tuple[str, str], tuple[SandboxSignature, SandboxLog]] = {}
    for day in DAYS:
        for app in APPS:
            for build in newest(app.id, day, 1):
                for signature in Store().signatures(build.id, day):
                    for log in Store().logs(signature.id, day):
                        found.setdefault((signature.id, content(log)), (signature, log))
    return tuple(found.values())


def content(log: SandboxLog) -> str:
    return json.dumps(log.document, sort_keys=True)


def frames(log: SandboxLog) -> Iterator[Json]:
    trees = log.document.get("callStackTree", [])
    waiting = [
        root
        for tree in ([trees] if isinstance(trees, dict) else trees)
        for stack in tree["callStacks"]
        for root in stack["callStackRootFrames"]
    ]
    while waiting:
        frame = waiting.pop()
        yield frame
        waiting += frame.get("subFrames", [])


def of_form(form: str) -> list[Json]:
    return [log.document for _, log in everything() if log.form == form]


def test_the_same_seed_and_day_give_the_same_signatures_and_logs() -> None:
    """The store is a function of seed and day, and nothing moves within a day."""
    build = newest(BANK, 5)[0]
    once, again, other = Store(1), Store(1), Store(2)
    assert once.signatures(build.id, 5.0) == again.signatures(build.id, 5.9)
    first = once.signatures(build.id, 5)[0].id
    assert once.logs_payload(first, 5, 200) == again.logs_payload(first, 5.5, 200)
    theirs = other.signatures(next(b.id for b in other.builds(BANK, 5) if b.store_state), 5)
    assert [s.weight for s in theirs] != [s.weight for s in once.signatures(build.id, 5)]


def test_each_type_is_there_and_one_that_nobody_has_heard_of() -> None:
    """Hangs, launches and disk writes in each app; the notes have another type too."""
    kinds = {app.id: {s.type for s in signatures_on(app.id, 10).values()} for app in APPS}
    assert kinds[BANK] == kinds[TRAILS] == {"HANGS", "LAUNCHES", "DISK_WRITES"}
    assert kinds[NOTES] == {"HANGS", "LAUNCHES", "DISK_WRITES", UNHEARD_OF}


def test_weights_are_shares_on_either_scale() -> None:
    """The weights of a type add up to at most about 1 in most apps, and to about 100 in one."""
    for app_id, whole in ((BANK, 1), (NOTES, 1), (TRAILS, 100)):
        for build in newest(app_id, 20):
            sums: Counter[str] = Counter()
            for signature in Store().signatures(build.id, 20):
                sums[signature.type] += signature.weight  # type: ignore[assignment]
                assert signature.weight > 0
            assert all(0.7 * whole < total < 1.05 * whole for total in sums.values())


def test_signatures_are_written_as_apple_writes_them() -> None:
    """Objective-C, Swift and places without symbols; ids are long hexadecimal numbers."""
    found = signatures_on(BANK, 10).values()
    assert all(len(s.id) == 64 and int(s.id, 16) for s in found)
    styles = {s.problem.style: s.text for s in found}
    assert styles["objective-c"].startswith("-[Harbour")
    assert styles["swift"].startswith("Harbour.")
    assert "() -> () + " in styles["swift"]
    assert all(" + " in text and text.rsplit(" + ", 1)[1].isdigit() for text in styles.values())
    assert styles["bare"].startswith("Harbour + ")


def test_a_problem_has_another_id_in_each_build() -> None:
    """The problem ties signatures together over builds; ids never do."""
    here, there = (Store().signatures(build.id, 20) for build in newest(BANK, 20)[:2])
    assert not {s.id for s in here} & {s.id for s in there}
    assert len({s.problem for s in here} & {s.problem for s in there}) > len(here) / 2


def test_a_heavy_problem_comes_with_one_version_and_goes_with_another() -> None:
    """At day 0 the bank's launches have a heavy new problem; three versions later it is gone."""
    newcomer = launches(newest(BANK, 0)[0], 0)[1]
    assert newcomer.problem not in earlier_problems(0)
    assert newcomer.weight > 0.12
    assert versions_with(newcomer) == ["7.42.0", "7.41.0", "7.40.0"]
    assert launches(newest(BANK, 20)[0], 20)[0].weight > 0.25


def test_a_release_that_launches_slower_has_a_problem_that_explains_it() -> None:
    """Most of its launches' weight is one new problem in the app's own code, which no other version has."""
    culprit, *others = launches(newest(BANK, 0)[0], 0)
    assert culprit.problem not in earlier_problems(0)
    assert culprit.weight > 0.55 > sum(other.weight for other in others)
    assert versions_with(culprit) == ["7.40.0"]
    blamed = [
        [frame["symbolName"] for frame in frames(log) if frame["isBlameFrame"]]
        for log in Store().logs(culprit.id, 0)
    ]
    assert blamed
    assert all(names[-1] == culprit.problem.symbol for names in blamed)
    assert culprit.problem.symbol.startswith("Harbour.")


def test_each_release_that_regresses_has_another_such_problem() -> None:
    """Every eighth version, each time under another name, which no version of the year before had."""
    for index in (40, 48, 56, 64):
        weighed = shares(0, BANK, "LAUNCHES", index, "IOS")
        symbol = problem(BANK, "LAUNCHES", max(weighed, key=lambda number: weighed[number])).symbol
        assert max(weighed.values()) == pytest.approx(0.6)
        assert sum(weighed.values()) == pytest.approx(1)
        for earlier in range(index - 26, index):
            before = shares(0, BANK, "LAUNCHES", earlier, "IOS")
            assert symbol not in {problem(BANK, "LAUNCHES", number).symbol for number in before}


def launches(build: SandboxBuild, day: int) -> list[SandboxSignature]:
    """The signatures of a build's launches, the heaviest first."""
    return [signature for signature in Store().signatures(build.id, day) if signature.type == "LAUNCHES"]


def earlier_problems(day: int) -> set[Problem]:
    """Those of the two versions before the newest one of the bank."""
    return {s.problem for build in newest(BANK, day)[1:] for s in Store().signatures(build.id, day)}


def versions_with(signature: SandboxSignature) -> list[str]:
    """The versions of the bank that have this problem, of five on day 50, the newest first."""
    return [
        build.version
        for build in newest(BANK, 50, 5)
        if signature.problem in {s.problem for s in Store().signatures(build.id, 50)}
    ]


def test_lasting_problems_are_replaced_slowly() -> None:
    """Within a year some problems of today are mended and others are new."""
    now, later = ({s.problem for s in signatures_on(BANK, day).values()} for day in (10, 375))
    assert now - later
    assert later - now
    assert now & later


@pytest.mark.parametrize("app_id", [BANK, NOTES, TRAILS])
def test_most_signatures_are_unchanged_from_day_to_day(app_id: str) -> None:
    """Weights drift, signatures come and go, but on no ordinary day for more than half of them."""
    came = went = moved = 0
    for day in range(14, 56):
        before, after = signatures_on(app_id, day), signatures_on(app_id, day + 1)
        both = before.keys() & after.keys()
        changed = sum(before[i].weight != after[i].weight for i in both)
        assert changed < len(both) / 2
        assert all(abs(after[i].weight / before[i].weight - 1) < 0.11 for i in both)
        came, went, moved = came + len(after) - len(both), went + len(before) - len(both), moved + changed
    assert min(came, went, moved) > 0


def test_logs_are_new_only_where_the_weight_moved() -> None:
    """An unchanged weight means unchanged logs; a changed one at most two new logs."""
    fresh: Counter[int] = Counter()
    for day in range(20, 30):
        before, after = signatures_on(BANK, day), signatures_on(BANK, day + 1)
        for identity in before.keys() & after.keys():
            old, new = ([content(x) for x in Store().logs(identity, d)] for d in (day, day + 1))
            added = [text for text in new if text not in old]
            assert before[identity].weight != after[identity].weight or new == old
            assert new == added + old[: len(new) - len(added)]
            fresh[len(added)] += 1
    assert set(fresh) == {0, 1, 2}


def test_the_oldest_logs_vanish() -> None:
    """A heavy signature keeps twenty logs; after four weeks its first ones are no longer among them."""
    heavy = launches(newest(BANK, 0)[0], 0)[1]
    first = [content(log) for log in Store().logs(heavy.id, 0)]
    last = [content(log) for log in Store().logs(heavy.id, 40)]
    assert len(last) == 20
    assert not set(first) & set(last)
    assert Store().logs(heavy.id, 40) == Store().logs(heavy.id, 70)


def test_small_apps_stay_small() -> None:
    """Fifteen signatures a type and ten logs a signature are the most, so that a demo is quick."""
    for app_id in (NOTES, TRAILS):
        for day in DAYS:
            for build in newest(app_id, day, 1):
                found = Store().signatures(build.id, day)
                assert max(Counter(s.type for s in found).values(), default=0) <= 15
                assert all(len(Store().logs(s.id, day)) <= 10 for s in found[::5])


def test_a_log_belongs_to_the_signature_and_build_it_was_asked_for_with() -> None:
    """Metadata name the build's version and number and the app."""
    store = Store()
    for app in APPS:
        for build in newest(app.id, 12):
            for signature in store.signatures(build.id, 12):
                for log in store.logs(signature.id, 12):
                    assert (log.signature_id, log.build_id) == (signature.id, build.id)
                    about = log.document.get("diagnosticMetaData") or {"appVersion": build.version}
                    assert about["appVersion"] == build.version
                    assert about.get("buildVersion", build.number) == build.number
                    assert about.get("bundleId", app.bundle_id) == app.bundle_id


def test_no_signature_lists_a_log_twice_and_some_share_one() -> None:
    """Contents differ within a signature; now and then the same log stands under two of a build."""
    shared = 0
    for app_id in (BANK, NOTES, TRAILS):
        for build in newest(app_id, 12):
            under: Counter[str] = Counter()
            for signature in Store().signatures(build.id, 12):
                texts = [content(log) for log in Store().logs(signature.id, 12)]
                assert len(texts) == len(set(texts))
                under.update(texts)
            shared += sum(count == 2 for count in under.values())
            assert set(under.values()) <= {1, 2}
    assert shared > 0


def test_awkward_logs_really_occur() -> None:
    """Within sixty days each awkward form is there, and most logs are ordinary all the same."""
    forms = Counter(log.form for _, log in everything())
    assert forms.keys() == AWKWARD | {"ordinary"}
    assert forms["ordinary"] > forms.total() / 2


def test_the_two_heaviest_of_each_type_and_build_have_ordinary_logs() -> None:
    """What people look at first shows metadata and a call stack: each log of it, on each day."""
    seen = Counter[str]()
    for app in APPS:
        for day in range(0, 60, 3):
            for build in newest(app.id, day, 12):
                for heaviest in two_heaviest(Store().signatures(build.id, day)):
                    found = Store().logs(heaviest.id, day)
                    assert found
                    assert all(log.form == "ordinary" and any(frames(log)) for log in found)
                    assert all(log.document["diagnosticMetaData"]["deviceType"] for log in found)
                    seen[heaviest.type] += 1
    assert seen.keys() == {"HANGS", "LAUNCHES", "DISK_WRITES", UNHEARD_OF}


def two_heaviest(signatures: list[SandboxSignature]) -> Iterator[SandboxSignature]:
    """The two of each type that weigh most on that day."""
    for kind in {signature.type for signature in signatures}:
        of_kind = [signature for signature in signatures if signature.type == kind]
        yield from sorted(of_kind, key=lambda signature: -signature.weight)[:2]


def test_awkward_forms_are_what_they_are_called() -> None:
    """Each form lacks or has what its name says."""
    assert all("diagnosticMetaData" not in log for log in of_form("no metadata"))
    assert all(log["diagnosticMetaData"] == {} for log in of_form("empty metadata"))
    assert all("callStackTree" not in log for log in of_form("no tree"))
    assert all(log["callStackTree"] == [] for log in of_form("no tree in the list"))
    assert all(log["callStackTree"][0]["callStacks"] == [] for log in of_form("no stack in the tree"))
    assert all(
        log["callStackTree"][0]["callStacks"] == [{"callStackRootFrames": []}]
        for log in of_form("no frame in the stack")
    )
    assert all(isinstance(log["callStackTree"], dict) for log in of_form("tree as an object"))
    assert all("hangTimeline" in log for log in of_form("unknown fields"))
    for log in of_form("per thread"):
        assert log["callStackTree"][0]["callStackPerThread"] is True
        assert len(log["callStackTree"][0]["callStacks"]) >= 2
    for _, found in everything():
        has_counts = all("sampleCount" in frame for frame in frames(found))
        assert has_counts or found.form == "no sample counts"


def test_some_trees_are_deep() -> None:
    """A deep tree has a few hundred frames, and a standard parser still reads it."""
    depths = [sum(1 for _ in frames(log)) for _, log in everything() if log.form == "deep"]
    assert depths
    assert all(200 < depth < 400 for depth in depths)
    assert max(sum(1 for _ in frames(log)) for _, log in everything() if log.form == "ordinary") < 40


def test_blame_lies_on_the_way_down_and_the_category_below() -> None:
    """Several frames of the app are blamed; the one that bears the category lies below the last of them."""
    log = next(log for s, log in everything() if log.form == "ordinary" and s.type == "HANGS")
    path, node = [], log.document["callStackTree"][0]["callStacks"][0]["callStackRootFrames"][0]
    while node is not None:
        path.append(node)
        node = next(iter(node.get("subFrames", [])), None)
    blamed = [place for place, frame in enumerate(path) if frame["isBlameFrame"]]
    (remarked,) = (place for place, frame in enumerate(path) if frame.get("insightsCategory"))
    assert len(blamed) >= 3
    assert {path[place]["binaryName"] for place in blamed} == {"Harbour"}
    assert remarked > blamed[-1]
    assert isinstance(path[0]["address"], str)
    assert isinstance(path[0]["lineNumber"], str)


def test_only_symbols_are_the_same_in_the_next_build() -> None:
    """The same problem in two builds: same functions, other images, offsets and addresses."""
    seen: dict[Any, list[tuple[SandboxSignature, SandboxLog]]] = {}
    for signature, log in everything():
        if log.form == "ordinary" and signature.problem.number % 5 != 4:
            seen.setdefault(signature.problem, []).append((signature, log))
    logs = next(found for found in seen.values() if len({log.build_id for _, log in found}) > 1)
    one = logs[0][1]
    two = next(log for _, log in logs if log.build_id != one.build_id)
    assert [f["symbolName"] for f in frames(one)] == [f["symbolName"] for f in frames(two)]
    for name in ("binaryUUID", "address", "offsetIntoBinaryTextSegment"):
        assert [f[name] for f in frames(one)] != [f[name] for f in frames(two)]


def test_signatures_without_logs_occur_in_both_shapes() -> None:
    """Now and then productData is empty, or a product has no logs; Apple's remarks come with some."""
    products = []
    for app in APPS:
        for build in newest(app.id, 12):
            for signature in Store().signatures(build.id, 12):
                products.append(Store().logs_payload(signature.id, 12, 200)["productData"])
    assert [] in products
    assert any(product and not product[0]["diagnosticLogs"] for product in products)
    remarks = [product[0]["diagnosticInsights"] for product in products if product]
    assert [] in remarks
    advice = next(filter(None, remarks))[0]
    assert all(advice[name] for name in ("insightsCategory", "insightsString", "insightsURL"))


def test_insights_say_up_down_and_neither_and_are_sometimes_missing() -> None:
    """A direction with the earlier versions' weights on some signatures, nothing at all on others."""
    found = [s.insight for app in APPS for s in signatures_on(app.id, 12).values()]
    assert None in found
    told = [insight for insight in found if insight is not None]
    assert {insight["direction"] for insight in told} == {"UP", "DOWN", "UNDEFINED"}
    assert any("referenceVersions" not in insight for insight in told)
    references = next(insight["referenceVersions"] for insight in told if insight["direction"] == "UP")
    assert all(r["version"].count(".") == 2 and r["value"] > 0 for r in references)


def test_builds_without_signatures() -> None:
    """None before the data appears, in TestFlight only, and in a version that few people use."""
    store = Store()
    assert store.signatures(newest(BANK, 12)[0].id, 12) == []
    assert store.signatures(newest(BANK, 13)[0].id, 13)
    assert store.signatures(store.builds(TRAILS, 0)[0].id, 0) == []
    quiet = next(build for build in newest(TRAILS, 25) if build.version == "1.42.0")
    assert store.signatures(quiet.id, 25) == []


def test_a_crowded_version_needs_a_second_page() -> None:
    """Every eighth version of the bank has more than two hundred signatures once its data is in."""
    crowded = next(build for build in newest(BANK, 0, 12) if build.version == "7.36.0")
    assert len(Store().signatures(crowded.id, 0)) > 200
    again = next(build for build in newest(BANK, 58) if build.version == "7.44.0")
    assert len(Store().signatures(again.id, 58)) > 200


def test_unknown_signatures_are_refused() -> None:
    """An unknown id, or one of another seed, raises KeyError."""
    foreign = Store(2).signatures(next(b.id for b in Store(2).builds(BANK, 5) if b.store_state), 5)[0].id
    for identity in ("", "1", foreign):
        with pytest.raises(KeyError):
            Store().logs(identity, 5)


@pytest.mark.parametrize(
    ("kind", "thrown", "metadata", "value"),
    [
        (
            "DISK_WRITES",
            b"\x01\x82\x7f\x05",
            {"eventDetail": "Total of 1069.43 MB of disk writes", "writesCaused": "1,069.43 MB"},
            1_069_430_000,
        ),
        (
            "DISK_WRITES",
            b"\x01\x82\x7f\x10",
            {"eventDetail": "Total of 1.069,43 MB of disk writes", "writesCaused": "1.069,43 MB"},
            1_069_430_000,
        ),
        (
            "DISK_WRITES",
            b"\x01\x82\x7f\x11",
            {"eventDetail": "Total of 1\u202f069,43 Mo of disk writes", "writesCaused": "1\u202f069,43 Mo"},
            1_069_430_000,
        ),
        ("DISK_WRITES", b"\x01\x82\x7f\x02", {"eventDetail": "Total of 1.0 GB of disk writes"}, 1e9),
        ("DISK_WRITES", b"\x01\x82\x7f\x03", {"writesCaused": "1,069.43 MB"}, 1_069_430_000),
        ("HANGS", b"\x00\x00\xd2\x04", {"eventDetail": "Hang of 2.35 sec"}, 2.35),
        ("HANGS", b"\x00\x00\xd2\x00", {"eventDetail": "Hang of 2,35 sec"}, 2.35),
        ("HANGS", b"\x00\x00\x3c\x02", {"eventDetail": "Hang of 850 ms"}, 0.85),
        ("HANGS", b"\x00\x00\xd2\x02", {"eventDetail": "Hang of 2,350 ms"}, 2.35),
        ("LAUNCHES", b"\x00\x00\x1e\x01", {"eventDetail": "Launch took 90 sec"}, 90),
        ("LAUNCHES", b"\x00\x00\x09\x03", {"eventDetail": "Launch took 1.2 seconds"}, 1.2),
    ],
)
def test_measurements_in_words(kind: str, thrown: bytes, metadata: Json, value: float) -> None:
    """Sizes and durations as devices of several regions write them, with the number that they mean."""
    found = measured(kind, thrown, readable=True)
    assert {name: text for name, text in found.metadata.items() if name != "event"} == metadata
    assert found.value == pytest.approx(value)


def test_words_without_a_number_have_no_value() -> None:
    """What cannot be parsed, and what has no metadata, is measured as None; all else has a value."""
    for signature, log in everything():
        without = log.form in ("no number", "no metadata", "empty metadata") or signature.type == UNHEARD_OF
        assert (log.value is None) == without


def test_devices_and_systems_are_spelt_as_in_diagnostics() -> None:
    """Underscores in models; OS versions with their build mostly, in old and new spelling; Macs too."""
    about = [log.document.get("diagnosticMetaData") or {} for _, log in everything()]
    models = {metadata["deviceType"] for metadata in about if metadata}
    systems = {metadata["osVersion"] for metadata in about if metadata}
    assert "iPhone13_2" in models
    assert not any("," in model for model in models)
    assert {"iPhone OS 14.6 (18F72)", "iOS 17.1 (21B74)", "iOS 18.2"} <= systems
    mac = next(build for build in newest(NOTES, 12, 2) if build.platform == "MAC_OS")
    logs = [log for s in Store().signatures(mac.id, 12) for log in Store().logs(s.id, 12)]
    assert {
        log.document["diagnosticMetaData"]["osVersion"][:6] for log in logs if log.form == "ordinary"
    } == {"macOS "}


def test_logs_are_cheap() -> None:
    """A download of a signature's logs takes less than a millisecond for each ordinary log."""
    store, count = Store(), 0
    listed = store.signatures(newest(BANK, 10)[0].id, 10)
    start = time.process_time()
    for signature in listed:
        count += len(store.logs(signature.id, 10))
    assert count > 20
    assert (time.process_time() - start) / count < 0.001
