"""Runs with the same numbers: by their files, and by the declared changes of the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_reporting import fill, load, write

from cpmlho.study.harness.provenance import code_digest
from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report import equality, frame
from cpmlho.study.report.cautions import cautions
from cpmlho.study.report.equality import Change, changes_after, compare, outdated
from cpmlho.study.results import HISTORY, RESULT, ResultError, run_dir


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Protocol, Protocol]:
    """The same four runs, made twice."""
    run = {"datasets": ["mnist"], "methods": ["delta_stn", "cpmlho"], "variants": [], "seeds": [0, 1]}
    a, b = (load(tmp_path / name, run=run) for name in "ab")
    return fill(a), fill(b)


def said(pair: tuple[Protocol, Protocol]) -> tuple[bool, list[str]]:
    lines: list[str] = []
    a, b = (Path(protocol.results_dir) / "runs" for protocol in pair)
    return compare(a, b, lines.append), lines


def test_times_memory_and_code_are_no_difference(pair: tuple[Protocol, Protocol]) -> None:
    other = {"train_seconds": 9.0, "peak_memory_mb": 1.0, "code": "beef", "git_commit": "f00d"}
    write(pair[1], RunKey("mnist", "cpmlho", 1), 0.29, **other)
    write(pair[0], RunKey("mnist", "cpmlho", 1), 0.29)
    assert said(pair) == (True, ["4 runs in both, 4 equal to the last digit, 0 not; 0 runs in one alone"])


@pytest.mark.parametrize("place", ["table", "result"])
def test_the_last_digit_is_a_difference(pair: tuple[Protocol, Protocol], place: str) -> None:
    folder = run_dir(pair[1].results_dir, RunKey("mnist", "cpmlho", 1))
    path = folder / (HISTORY if place == "table" else RESULT)
    before = path.read_text()
    loss = repr(json.loads((folder / RESULT).read_text())["final"]["val_loss"])
    path.write_text(before.replace(loss, f"{loss}0000000001", 1))
    assert path.read_text() != before
    equal, lines = said(pair)
    assert not equal
    assert lines[0].startswith("mnist/cpmlho/seed1: differs; final validation loss ")
    assert lines[1] == "4 runs in both, 3 equal to the last digit, 1 not; 0 runs in one alone"


def test_what_a_macos_share_keeps_beside_each_file_is_no_part_of_a_run(pair: tuple[Protocol, Protocol]) -> None:
    ours, theirs = (Path(each.results_dir) for each in pair)
    beside = next(ours.rglob(HISTORY)).with_name(f"._{HISTORY}")
    beside.write_bytes(b"\0\5\x16\7")
    assert compare(ours, theirs, lambda line: None)


def test_a_diverged_run_equals_itself(pair: tuple[Protocol, Protocol]) -> None:
    for protocol in pair:
        write(protocol, RunKey("mnist", "cpmlho", 0), float("nan"), status="diverged")
    assert said(pair)[0]


def test_runs_of_one_side_are_counted_and_none_in_common_is_an_error(pair: tuple[Protocol, Protocol]) -> None:
    keys = [RunKey("mnist", method, seed) for method in ("delta_stn", "cpmlho") for seed in (0, 1)]
    for key in keys[:3]:
        (run_dir(pair[1].results_dir, key) / RESULT).unlink()
    assert said(pair) == (True, ["1 runs in both, 1 equal to the last digit, 0 not; 3 runs in one alone"])
    (run_dir(pair[0].results_dir, keys[3]) / RESULT).unlink()
    with pytest.raises(ResultError, match="no run lies at the same place"):
        said(pair)


def changed(name: str, before: str, after: str) -> Change:
    return Change(change=name, compared="all", codes={"cpmlho": [before, after]})


def test_only_an_unbroken_chain_of_changes_leads_to_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    present = code_digest("cpmlho")
    first, second, third = changed("1", "a", "b"), changed("2", "b", "c"), changed("3", "c", present)
    monkeypatch.setattr(equality, "known_changes", lambda: [first, second, third])
    assert changes_after("cpmlho", "a", "mnist") == [first, second, third]
    assert changes_after("cpmlho", "c", "mnist") == [third]
    assert changes_after("cpmlho", present, "mnist") == []
    assert not any(outdated("cpmlho", code, "mnist") for code in ("a", "b", "c", present))
    assert outdated("cpmlho", "beef", "mnist")
    assert outdated("delta_stn", "a", "mnist")
    monkeypatch.setattr(equality, "known_changes", lambda: [first, third])
    assert outdated("cpmlho", "a", "mnist")


def test_runs_before_a_declared_change_are_not_flagged(
    pair: tuple[Protocol, Protocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pair[0], RunKey("mnist", "cpmlho", 1), 0.3, code="earlier")
    flag = [("mnist: made by other code than the present: cpmlho/seed1", [])]
    assert cautions(frame.read_runs(pair[0])) == flag
    declared = changed("nothing", "earlier", code_digest("cpmlho"))
    monkeypatch.setattr(equality, "known_changes", lambda: [declared])
    assert cautions(frame.read_runs(pair[0])) == []


def test_what_is_declared_can_be_read() -> None:
    for change in equality.known_changes():
        assert change.change
        assert change.compared
        for before, after in change.codes.values():
            assert len(before) == len(after) == 64
