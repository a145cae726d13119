from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.payloads.diagnostics import (
    DiagnosticLogs,
    Frame,
    Log,
    LogInsight,
    Signature,
    SignatureLogs,
    line_number,
    parse_logs,
    parse_signatures,
    trend_of,
)
from exporter.errors import BadAnswer

EMPTY = Log("", "", "", "", "", "", "", "", "", ())
METADATA = {
    "event": "disk writes",
    "eventDetail": "Total of 1073.76 MB of disk writes",
    "writesCaused": "1073.76 MB",
    "osVersion": "iPhone OS 14.6 (18F72)",
    "appVersion": "2.1",
    "buildVersion": "210",
    "bundleId": "com.example.notes",
    "deviceType": "iPhone13_3",
    "platformArchitecture": "arm64e",
}
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.sampled_from(["", " ", "\ud800", "a\x00b", "x" * 600, "0", "-1", "9" * 400, 1e308, -0.5]),
    st.text(st.characters(), max_size=5),
)
junk = st.recursive(
    odd,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["id", "attributes", "subFrames", "callStacks", "weight", "version", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def resource(number: int = 1, **attributes: Any) -> dict[str, Any]:
    return {
        "type": "diagnosticSignatures",
        "id": f"s{number}",
        "attributes": {"diagnosticType": "HANGS", "signature": "Shop.pay()", "weight": 0.5, **attributes},
    }


def signature(**attributes: Any) -> tuple[Signature, dict[str, int]]:
    """The signature with these attributes, and what was left out of it."""
    answer = parse_signatures([{"data": [resource(**attributes)]}])
    return answer.signatures[0], dict(answer.left_out)


def logs_of(*logs: Any, **product: Any) -> DiagnosticLogs:
    return parse_logs({"productData": [{"signatureId": "s1", "diagnosticLogs": list(logs), **product}]})


def stacks_of(tree: Any) -> tuple[tuple[tuple[Frame, ...], ...], dict[str, int]]:
    """The stacks of a log with this tree, and what was left out of it."""
    answer = logs_of({"callStackTree": tree})
    return answer.products[0].logs[0].stacks, dict(answer.left_out)


def frame_of(**fields: Any) -> Frame:
    stacks, _ = stacks_of([{"callStacks": [{"callStackRootFrames": [fields]}]}])
    return stacks[0][0]


# Signatures


def test_a_whole_signature() -> None:
    """Each field of Apple's goes to its place."""
    insight = {
        "insightType": "TREND",
        "direction": "UP",
        "referenceVersions": [{"version": "2.0", "value": 0.25}, {"version": "1.9", "value": 0.0}],
    }
    found, left_out = signature(insight=insight)
    assert found == Signature("s1", "HANGS", "Shop.pay()", 0.5, 1, (("2.0", 0.25), ("1.9", 0.0)))
    assert not left_out


def test_signatures_of_all_pages_in_their_order() -> None:
    """Pages are read as one list; an id that comes again is counted, and the first one counts."""
    pages = [
        {"data": [resource(2), resource(1, weight=0.9)]},
        {"data": []},
        {"data": [resource(1, weight=0.1), resource(3)]},
    ]
    answer = parse_signatures(iter(pages))
    assert [(item.id, item.weight) for item in answer.signatures] == [("s2", 0.5), ("s1", 0.9), ("s3", 0.5)]
    assert answer.left_out == {"duplicate": 1}


@pytest.mark.parametrize("pages", [[], [{"data": []}], [{"data": []}, {"data": []}]])
def test_a_build_may_have_no_signatures(pages: list[Any]) -> None:
    """An empty list is an answer: there are none."""
    assert parse_signatures(pages).signatures == ()
    assert not parse_signatures(pages).left_out


@pytest.mark.parametrize("page", [None, [], "x", {}, {"data": None}, {"data": {}}, {"errors": []}])
def test_what_is_no_page_of_signatures_is_refused(page: Any) -> None:
    """A page without a list does not say that there are no signatures: what is stored stays."""
    with pytest.raises(BadAnswer, match="no data list"):
        parse_signatures([{"data": [resource()]}, page])


@pytest.mark.parametrize("data", [[None], [5.0, "x"], [{}], [{"id": "s1"}], [resource(diagnosticType=None)]])
def test_signatures_that_nobody_can_understand_are_refused(data: list[Any]) -> None:
    """Where there is something but nothing of it can be read, the format has changed."""
    with pytest.raises(BadAnswer, match="no signature in the answer could be understood"):
        parse_signatures([{"data": data}])


@pytest.mark.parametrize("raw", [None, "", " \n", 5.0, ["s1"], {"id": "s1"}, True])
def test_a_signature_without_id_or_type_is_counted(raw: Any) -> None:
    """Nobody could tell what it is a signature of; those beside it are read."""
    data = [resource() | {"id": raw}, resource(3, diagnosticType=raw), resource(2)]
    answer = parse_signatures([{"data": data}])
    assert [item.id for item in answer.signatures] == ["s2"]
    assert answer.left_out == {"no_signature": 2}


@pytest.mark.parametrize("raw", [0.0, 0.85, 1.0, 85.0, 100.0, -1.0])
def test_a_weight_is_read_on_either_scale(raw: float) -> None:
    """0 to 1 or 0 to 100: the number is Apple's, unchanged."""
    found, left_out = signature(weight=raw)
    assert (found.weight, left_out) == (raw, {})


@pytest.mark.parametrize("raw", ["0.85", "85 %", math.nan, math.inf, -math.inf, True, [], {}])
def test_a_weight_that_is_no_number_is_counted(raw: Any) -> None:
    """It costs the weight, not the signature."""
    found, left_out = signature(weight=raw)
    assert (found.id, found.weight, left_out) == ("s1", None, {"not_a_number": 1})


def test_a_missing_weight_is_none() -> None:
    """Without a weight, or with null for one, nothing is left out."""
    assert signature(weight=None) == (Signature("s1", "HANGS", "Shop.pay()", None, None, ()), {})


@pytest.mark.parametrize("raw", [None, "", 5.0, ["x"], {}])
def test_a_signature_may_have_no_text(raw: Any) -> None:
    """A signature is one by its id and type."""
    assert signature(signature=raw)[0].text == ""


@pytest.mark.parametrize("raw", ["SPINS", "hangs", "MEMORY EXCEPTIONS"])
def test_a_type_that_nobody_knows_is_kept(raw: str) -> None:
    """New types of Apple's are carried through."""
    assert signature(diagnosticType=raw)[0].type == raw


@pytest.mark.parametrize(
    ("raw", "trend"),
    [
        ("UP", 1),
        ("DOWN", -1),
        ("UNDEFINED", 0),
        (" up ", 1),
        ("SIDEWAYS", None),
        ("", None),
        (None, None),
        (1.0, None),
        (["UP"], None),
    ],
)
def test_directions(raw: Any, trend: int | None) -> None:
    """UP, UNDEFINED and DOWN are 1, 0 and -1 in any case; anything else is no trend."""
    assert trend_of(raw) == trend
    assert signature(insight={"direction": raw})[0].trend == trend


@pytest.mark.parametrize("raw", ["UP", ["UP"], 1.0])
def test_an_insight_of_another_shape_is_malformed(raw: Any) -> None:
    """It costs the insight, not the signature."""
    found, left_out = signature(insight=raw)
    assert (found.trend, found.reference_versions, left_out) == (None, (), {"malformed": 1})


def test_reference_versions_that_say_nothing_are_counted() -> None:
    """Each entry is in the result, or counted once by what is wrong with it."""
    entries = [
        {"version": "2.0", "value": 1.0},
        {"version": "2.0", "value": 2.0},
        {"version": "1.9"},
        {"version": "1.9", "value": None},
        {"version": "1.9", "value": "3"},
        {"version": "1.9", "value": math.nan},
        {"version": "", "value": 4.0},
        {"version": 1.8, "value": 5.0},
        {},
        "1.7",
        None,
        {"version": "1.7", "value": 0.0},
    ]
    found, left_out = signature(insight={"referenceVersions": entries})
    assert found.reference_versions == (("2.0", 1.0), ("1.7", 0.0))
    assert found.trend is None
    assert left_out == {"duplicate": 1, "no_value": 3, "not_a_number": 2, "no_version": 2, "malformed": 2}


def test_texts_of_signatures_are_bounded_and_clean() -> None:
    """A text is printable and at most 500 characters long, an id at most 200."""
    found, _ = signature(signature="a\x00\ud800" + "x" * 9999)
    assert found.text == "a ?" + "x" * 497
    answer = parse_signatures([{"data": [resource() | {"id": "i" * 300}]}])
    assert answer.signatures[0].id == "i" * 200


@settings(deadline=None, max_examples=250)
@given(
    st.lists(st.lists(junk, max_size=4), max_size=3),
    st.dictionaries(st.sampled_from(["diagnosticType", "signature", "weight", "insight"]), junk),
    junk,
)
def test_each_signature_is_found_or_counted(pages: list[list[Any]], changed: Any, odd_id: Any) -> None:
    """Whatever comes beside it, a right signature is read, each id is there once, and nothing is lost."""
    entries = [[*page, resource(2, **changed), resource() | {"id": odd_id}] for page in pages]
    answer = parse_signatures([{"data": page} for page in [*entries, [resource(7)]]])
    offered = 1 + sum(map(len, entries))
    assert len(answer.signatures) <= offered <= len(answer.signatures) + answer.left_out.total()
    assert resource(7)["id"] in {item.id for item in answer.signatures}
    assert len({item.id for item in answer.signatures}) == len(answer.signatures)
    assert all(item.weight is None or math.isfinite(item.weight) for item in answer.signatures)


# Logs


def test_a_whole_log() -> None:
    """Each field of Apple's goes to its place, and frames come in pre-order with their depth."""
    below = {"symbolName": "write", "binaryName": "libc", "insightsCategory": "Synchronous I/O"}
    root = {
        "symbolName": "Shop.pay()",
        "binaryName": "Shop",
        "binaryUUID": "70B89F27",
        "fileName": "Pay.swift",
        "lineNumber": "42",
        "address": "0x104",
        "offsetIntoSymbol": "12",
        "offsetIntoBinaryTextSegment": "4096",
        "rawFrame": "Shop 0x104",
        "sampleCount": 7.0,
        "isBlameFrame": True,
        "subFrames": [below],
    }
    remark = {
        "insightsCategory": "Disk",
        "insightsString": "Write less.",
        "insightsURL": "https://a.example/b",
    }
    tree = {"callStackPerThread": False, "callStacks": [{"callStackRootFrames": [root, {}]}]}
    answer = logs_of(
        {"diagnosticMetaData": METADATA, "callStackTree": [tree]}, diagnosticInsights=[remark, {}]
    )
    frames = (
        Frame(
            depth=0,
            symbol="Shop.pay()",
            binary="Shop",
            binary_uuid="70B89F27",
            file="Pay.swift",
            line=42,
            address="0x104",
            offset_in_symbol="12",
            offset_in_text="4096",
            raw="Shop 0x104",
            samples=7,
            blamed=True,
            category="",
        ),
        Frame(1, "write", "libc", "", "", None, "", "", "", "", None, False, "Synchronous I/O"),
        Frame(0, "", "", "", "", None, "", "", "", "", None, False, ""),
    )
    log = Log(
        event="disk writes",
        detail="Total of 1073.76 MB of disk writes",
        writes_caused="1073.76 MB",
        os_version="iPhone OS 14.6 (18F72)",
        app_version="2.1",
        build_version="210",
        bundle_id="com.example.notes",
        device="iPhone13_3",
        architecture="arm64e",
        stacks=(frames,),
    )
    remarks = (LogInsight("Disk", "Write less.", "https://a.example/b"),)
    assert answer.products == (SignatureLogs("s1", remarks, (log,)),)
    assert not answer.left_out


@pytest.mark.parametrize("document", [None, [], "x", {}, {"productData": None}, {"productData": {}}])
def test_what_is_not_diagnostic_logs_is_refused(document: Any) -> None:
    """Without a productData list the logs have to be asked for again."""
    with pytest.raises(BadAnswer, match="no productData list"):
        parse_logs(document)


@pytest.mark.parametrize(
    "products", [["x"], [None], [{"diagnosticLogs": "x"}], [{"diagnosticLogs": [5.0, None]}]]
)
def test_logs_that_nobody_can_understand_are_refused(products: list[Any]) -> None:
    """Where there is something but no log in it, the format has changed: they are asked for again."""
    with pytest.raises(BadAnswer, match="no log in the answer could be understood"):
        parse_logs({"productData": products})


@pytest.mark.parametrize("products", [[], [{}], [{"signatureId": "s1", "diagnosticLogs": []}]])
def test_a_signature_may_have_no_logs(products: list[Any]) -> None:
    """An answer without logs is normal: nothing is left out."""
    answer = parse_logs({"productData": products})
    assert not any(product.logs for product in answer.products)
    assert not answer.left_out


@pytest.mark.parametrize("log", [{}, {"diagnosticMetaData": None, "callStackTree": None}])
def test_a_log_without_anything_is_a_log(log: dict[str, Any]) -> None:
    """Every field of a log may be missing or null."""
    answer = logs_of(log)
    assert answer.products[0].logs == (EMPTY,)
    assert not answer.left_out


@pytest.mark.parametrize("raw", ["x", 5.0, ["x"], True])
def test_parts_of_another_shape_are_counted(raw: Any) -> None:
    """Each costs itself alone: metadata, tree, call stack, frames and remarks."""
    stacks = [raw, {"callStackRootFrames": [raw, {"symbolName": "main", "subFrames": [raw]}]}]
    log = {"diagnosticMetaData": raw, "callStackTree": [raw, {"callStacks": stacks}]}
    answer = logs_of(raw, log, diagnosticInsights=[raw])
    (product,) = answer.products
    assert [[frame.symbol for frame in stack] for stack in product.logs[0].stacks] == [["main"]]
    assert answer.left_out == {"malformed": 7}


@pytest.mark.parametrize("raw", [None, 5.0, ["iPhone13_3"], {}, "", "\x00"])
def test_metadata_that_is_no_text_is_empty(raw: Any) -> None:
    """Fields of the metadata are texts or nothing."""
    answer = logs_of({"diagnosticMetaData": dict.fromkeys(METADATA, raw)})
    assert answer.products[0].logs == (EMPTY,)


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        {},
        [{}],
        [{"callStacks": None}],
        [{"callStacks": []}],
        {"callStacks": [{}]},
        [{"callStacks": [{"callStackRootFrames": []}]}],
    ],
)
def test_empty_trees_have_no_stacks(tree: Any) -> None:
    """A tree may end at any level; nothing is left out then."""
    assert stacks_of(tree) == ((), {})


def test_a_tree_is_a_list_or_an_object() -> None:
    """App Store Connect sends a list of trees, MetricKit a single one."""
    tree = {"callStacks": [{"callStackRootFrames": [{"symbolName": "main"}]}]}
    stacks, left_out = stacks_of(tree)
    assert [frame.symbol for stack in stacks for frame in stack] == ["main"]
    assert (stacks_of([tree]), left_out) == ((stacks, {}), {})
    assert stacks_of([tree, tree]) == ((*stacks, *stacks), {})


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        ("42", 42),
        (" 42\n", 42),
        ("0042", 42),
        (42.0, 42),
        (1.0, 1),
        (42.9, 42),
        ("0", None),
        ("00", None),
        (0.0, None),
        (0.5, None),
        (-1.0, None),
        ("-1", None),
        ("", None),
        ("4 2", None),
        ("42.5", None),
        ("0x2A", None),
        ("٤٢", None),
        ("²", None),
        ("999999999", 999_999_999),
        ("9" * 5000, None),
        (1e9, None),
        (1e308, None),
        (math.inf, None),
        (math.nan, None),
        (None, None),
        (True, None),
        (["42"], None),
    ],
)
def test_line_numbers(raw: Any, number: int | None) -> None:
    """A line is a text or a number from 1 up; garbage, zero and what no file has are unknown."""
    assert line_number(raw) == number
    assert frame_of(lineNumber=raw).line == number


@pytest.mark.parametrize(
    ("raw", "samples"),
    [(7.0, 7), (0.0, 0), (None, None), ("7", None), (math.nan, None), (math.inf, None), (True, None)],
)
def test_sample_counts(raw: Any, samples: int | None) -> None:
    """A frame without a count, or with one that is no number, has none."""
    assert frame_of(sampleCount=raw).samples == samples


@pytest.mark.parametrize("raw", [False, None, "true", 1.0])
def test_a_frame_is_blamed_where_it_is_said(raw: Any) -> None:
    """Only true is true."""
    assert not frame_of(isBlameFrame=raw).blamed


def test_texts_of_frames_are_bounded_and_clean() -> None:
    """Symbols are printable and at most 500 characters long; what is no text is empty."""
    frame = frame_of(symbolName="\x1b[31m\udfff" + "x" * 9999, address=5.0, rawFrame=None, fileName=["x"])
    assert frame.symbol == "[31m?" + "x" * 495
    assert (frame.address, frame.raw, frame.file) == ("", "", "")


def test_a_deep_tree_is_read() -> None:
    """10,000 frames below one another are a list of frames like any other."""
    node: dict[str, Any] = {"symbolName": "9999"}
    for number in reversed(range(9999)):
        node = {"symbolName": str(number), "subFrames": [node]}
    stacks, left_out = stacks_of({"callStacks": [{"callStackRootFrames": [node]}]})
    assert [(frame.depth, frame.symbol) for frame in stacks[0]] == [(n, str(n)) for n in range(10_000)]
    assert not left_out


def test_a_wide_tree_is_read() -> None:
    """100,000 frames beside one another are read one after the other, those below each right after it."""
    frames: list[dict[str, Any]] = [{"symbolName": "f", "sampleCount": 1.0} for _ in range(100_000)]
    frames[50_000]["subFrames"] = [{"symbolName": "g"}]
    stacks, left_out = stacks_of({"callStacks": [{"callStackRootFrames": frames}]})
    assert len(stacks[0]) == 100_001
    assert [place for place, frame in enumerate(stacks[0]) if frame.depth] == [50_001]
    assert not left_out


def frames_in(tree: Any) -> int:
    """How many frames a tree offers that are objects, below parts that are what they should be."""
    trees = [tree] if isinstance(tree, dict) else _dicts(tree)
    stacks = [stack for item in trees for stack in _dicts(item.get("callStacks"))]
    waiting = [frame for stack in stacks for frame in _dicts(stack.get("callStackRootFrames"))]
    count = 0
    while waiting:
        count += 1
        waiting += _dicts(waiting.pop().get("subFrames"))
    return count


def _dicts(raw: Any) -> list[dict[str, Any]]:
    return [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []


def random_answer(seed: int) -> dict[str, Any]:
    """A right answer, made of a seed."""
    rng = random.Random(seed)

    def frame(depth: int) -> dict[str, Any]:
        below = [frame(depth + 1) for _ in range(rng.randint(0, 2 if depth < 3 else 0))]
        some = {"symbolName": f"f{rng.randint(0, 9)}", "lineNumber": "7", "sampleCount": 3.0}
        return {**some, "isBlameFrame": rng.random() < 0.3, "subFrames": below}

    def log() -> dict[str, Any]:
        stacks = [{"callStackRootFrames": [frame(0)]} for _ in range(rng.randint(0, 2))]
        return {"diagnosticMetaData": dict(METADATA), "callStackTree": [{"callStacks": stacks}]}

    logs = [log() for _ in range(rng.randint(1, 3))]
    return {"version": "1.0", "productData": [{"signatureId": "s1", "diagnosticLogs": logs}]}


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Each (container, key or index) below `productData`."""
    waiting = [document["productData"]]
    while waiting:
        container = waiting.pop()
        for key, value in list(container.items() if isinstance(container, dict) else enumerate(container)):
            yield container, key
            if isinstance(value, dict | list):
                waiting.append(value)


@st.composite
def mutated_logs(draw: st.DrawFn) -> Any:
    """An answer with arbitrary JSON in random places; as it arrives, so every number is a float."""
    document = random_answer(draw(st.integers(0, 5000)))
    for _ in range(draw(st.integers(0, 5))):
        found = list(places(document))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        act = draw(st.sampled_from(["replace", "delete", "twice"]))
        if act == "replace":
            container[key] = draw(junk)
        elif act == "delete":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
    return json.loads(json.dumps(document), parse_int=float)


@settings(deadline=None, max_examples=300)
@given(mutated_logs())
def test_each_log_and_frame_is_found_or_counted(document: Any) -> None:
    """Whatever Apple sends, only BadAnswer is raised, and all that is an object is in the result."""
    try:
        answer = parse_logs(document)
    except BadAnswer:
        return
    products = _dicts(document["productData"])
    logs = [log for product in products for log in _dicts(product.get("diagnosticLogs"))]
    found = [log for product in answer.products for log in product.logs]
    assert (len(answer.products), len(found)) == (len(products), len(logs))
    for log, raw in zip(found, logs, strict=True):
        assert sum(map(len, log.stacks)) == frames_in(raw.get("callStackTree"))
        for stack in log.stacks:
            assert stack[0].depth == 0
            assert all(after.depth <= before.depth + 1 for before, after in pairwise(stack))
    listed = [product.get("diagnosticLogs") for product in products]
    entries = sum(len(item) for item in listed if isinstance(item, list))
    not_lists = sum(not isinstance(item, list | None) for item in listed)
    lost = len(document["productData"]) - len(products) + entries - len(logs) + not_lists
    assert answer.left_out["malformed"] >= lost


@settings(deadline=None, max_examples=200)
@given(st.recursive(junk, lambda inner: st.fixed_dictionaries({"productData": st.lists(inner, max_size=3)})))
def test_any_json_is_read_or_refused(document: Any) -> None:
    """Any JSON at all gives a result or BadAnswer, whichever payload it is taken for."""
    for parse in (parse_logs, lambda page: parse_signatures([page])):
        with suppress(BadAnswer):
            assert parse(document) is not None
