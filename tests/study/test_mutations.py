"""Random damage to files, settings and command lines: each is one line that names it, or does no harm."""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_kills import killed, leftovers, tree
from test_tracking import GRADIENT, SEARCH

import cpmlho.__main__ as command
from cpmlho.study.events import Metrics
from cpmlho.study.made import all_intact
from cpmlho.study.numerics import NUMERICS
from cpmlho.study.protocol import load
from cpmlho.study.results import (
    HISTORY,
    HYPERPARAMETERS,
    RESULT,
    TRIALS,
    ResultError,
    RunResult,
    read_result,
    read_rows,
    run_dir,
    write_run,
)
from cpmlho.study.spec import RunKey

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config.yaml"
METHODS = ["random_search", "cpmlho"]
KEYS = [RunKey("mnist", method, seed) for method in METHODS for seed in (0, 1)]
OTHER = RunKey("fashionmnist", "cpmlho", 0)
Command = Callable[..., tuple[int, str]]  # from arguments to exit status and standard error


def write(results: Path, key: RunKey, protocol: Any) -> None:
    """A made-up run whose tables are as long as they say."""
    spec = protocol.resolve(key)
    tables = SEARCH if spec.trials else GRADIENT
    tuned = list(spec.data.hyperparameters)
    known = {"update", "step", "trial", "val_loss", "val_acc", "test_loss", "test_acc", "seconds", "status"}
    tables = {
        name: [
            {**{k: v for k, v in row.items() if k in known}, **dict.fromkeys(tuned, 0.5 / (1 + i))}
            if name in (HYPERPARAMETERS, TRIALS)
            else dict(row)
            for i, row in enumerate(rows[:40])
        ]
        for name, rows in tables.items()
    }
    metrics = Metrics(val_loss=0.1 + key.seed / 64, val_acc=0.9, test_loss=0.3, test_acc=0.8)
    tables[HISTORY][-1] |= asdict(metrics)
    outcome = RunResult(
        spec=spec,
        status="done",
        final=metrics,
        best=metrics,
        hyperparameters=dict.fromkeys(tuned, 0.25),
        steps=tables[HISTORY][-1]["step"],
        train_seconds=10.5,
        train_cpu_seconds=9.5,
        evaluation_seconds=0.5,
        total_seconds=12.5,
        peak_memory_mb=512.0,
        device="cpu",
        precision="float32",
        versions={},
        git_commit="c0ffee",
        numerics=NUMERICS,
        data_sha256=spec.data.sha256,
    )
    write_run(run_dir(results, key), outcome, tables)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of two methods with two seeds, and one run of another dataset; `over.yaml` asks for them."""
    run = {"datasets": ["mnist"], "methods": METHODS, "variants": [], "seeds": [0, 1]}
    changes = {
        "results_dir": str(tmp_path / "results"),
        "run": run,
        "methods": {"random_search": {"trials": len(SEARCH[TRIALS])}},
    }
    (tmp_path / "over.yaml").write_text(yaml.safe_dump(changes))
    protocol = load([CONFIG, tmp_path / "over.yaml"])
    for key in [*KEYS, OTHER]:
        write(tmp_path / "results", key, protocol)
    return tmp_path / "results"


def junk(generator: random.Random, content: bytes) -> bytes:
    return generator.randbytes(generator.randrange(1, 300))


def flipped(generator: random.Random, content: bytes) -> bytes:
    place = generator.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << generator.randrange(8)]) + content[place + 1 :]


def edited(generator: random.Random, content: bytes) -> bytes:
    """One value replaced by another."""
    words = ["", "x", "-1", "1e999", "nan", "9" * 400, "null", '"', "\0", "\n", "ü", "{", "1e-320", "true", "[]"]
    places = [i for i, byte in enumerate(content) if chr(byte) in ",:\n"][:-1]
    place = generator.choice(places) + 1
    end = min(i for i in range(place, len(content) + 1) if content[i : i + 1] in (b",", b"\n", b"}", b""))
    return content[:place] + generator.choice(words).encode() + content[end:]


def without_a_line(generator: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    lines.pop(generator.randrange(len(lines)))
    return b"".join(lines)


DAMAGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "empty": lambda generator, content: b"",
    "truncated": lambda generator, content: content[: generator.randrange(len(content))],
    "junk": junk,
    "one bit turned": flipped,
    "edited": edited,
    "longer": lambda generator, content: content + generator.choice([b"\0", b"x", b"1,2\n", content]),
    "without a line": without_a_line,
}


def over(results: Path) -> list[object]:
    """The options that name the configuration of these results."""
    return ["--config", CONFIG, "--config", results.parent / "over.yaml"]


def is_one_line(said: str, begins: str = "cpmlho: error: ") -> bool:
    return said.startswith(begins) and said.endswith("\n") and said.count("\n") == 1


# Result files


@pytest.mark.slow
def test_a_reader_names_the_damaged_file_or_gives_rows_and_results(results: Path) -> None:
    generator, outcomes = random.Random(0), Counter[str]()
    paths = [path for key in KEYS for path in sorted(run_dir(results, key).glob("[a-z]*"))]
    for _ in range(400):
        path, name = generator.choice(paths), generator.choice(list(DAMAGES))
        whole = path.read_bytes()
        path.write_bytes(DAMAGES[name](generator, whole))
        try:
            (read_result if path.name == RESULT else read_rows)(path)
            outcomes["read"] += 1
        except ResultError as error:
            outcomes["refused"] += 1
            said = str(error)
        else:
            said = f"{path}: "
        assert said.startswith(f"{path}: "), name
        assert "\n" not in said
        path.write_bytes(whole)
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize("verb", ["tables", "compare"])
def test_a_verb_names_a_damaged_result_file_in_one_line(verb: str, results: Path, cpmlho: Command) -> None:
    arguments = [results, results] if verb == "compare" else over(results)
    for path in sorted(run_dir(results, KEYS[2]).glob("[a-z]*")):
        whole = path.read_bytes()
        path.write_bytes(b"\xff" + whole[: len(whole) // 2])
        status, said = cpmlho(verb, *arguments)
        if status or path.name in (RESULT, HISTORY):  # not every verb reads the other tables
            assert (status, is_one_line(said, f"cpmlho: error: {path}: ")) == (2, True), said
            assert not (results / "tables").exists()
        path.write_bytes(whole)
        shutil.rmtree(results / "tables", ignore_errors=True)


@pytest.mark.slow
def test_damage_to_what_was_made_is_one_line_that_says_what_to_make_again(results: Path, cpmlho: Command) -> None:
    """Also what is left where `tables` or `figures` was cut short: some files new, some old."""
    for verb in ("tables", "figures"):
        assert cpmlho(verb, *over(results))[0] == 0
    generator = random.Random(2)
    for folder, kind, verb in (("tables", "csv", "figures"), ("figures", "svg", "report")):
        path = max(sorted((results / folder).glob(f"*.{kind}")), key=lambda path: path.stat().st_size)
        whole = path.read_bytes()
        for damage in DAMAGES.values():
            path.write_bytes(damage(generator, whole))
            if path.read_bytes() != whole:
                with pytest.raises(ResultError, match=rf"/{folder}: {path.name}: .*; make the {folder} again: "):
                    all_intact(results)
        status, said = cpmlho(verb, *over(results))
        assert status == 2
        assert is_one_line(said, f"cpmlho: error: {path.parent}: {path.name}: ")
        path.write_bytes(whole)


@pytest.mark.slow
def test_a_verb_killed_at_any_moment_leaves_whole_files_and_ends_at_the_same_bytes(
    results: Path, cpmlho: Command
) -> None:
    generator, kills, took = random.Random(6), Counter[str](), {}
    for verb in ("tables", "tables", "figures"):  # first what is imported
        began = time.process_time()
        assert cpmlho(verb, *over(results))[0] == 0
        took[verb] = time.process_time() - began
    whole = tree(results)
    for verb in ("tables", "figures"):
        for attempt in range(3):
            if attempt:  # what is there is replaced, or made for the first time
                shutil.rmtree(results / verb, ignore_errors=True)
            seconds = generator.uniform(0, took[verb] / 2)
            kills[verb] += killed(lambda verb=verb: cpmlho(verb, *over(results)), seconds)
            found = tree(results)
            assert {name: whole[name] for name in found} == found
        assert cpmlho(verb, *over(results))[0] == 0
        assert tree(results) == whole
        assert leftovers(results) == []
    assert all(kills.values())


# Configurations and command lines


WORDS = [None, True, False, -1, 0, 1, 2**63, 1.5, 1e400, -0.0, float("nan"), "", "x", "../..", "ü\n", [], {}, [[]]]
TEXTS = [
    *("\t", "- ", ": ", "[", "}", "#", "&a ", "*a", "!!python/object:os.system ", "---\n", "<<: 1\n", "? ", "|\n"),
    *("%YAML 9\n", "2020-01-01", "0x", "1_000", "1:2:3", "\0", "\ufeff", "'", '"', "null", "\u2028", "@", "&a [*a]"),
]


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value, at any depth."""
    if path:
        yield path
    for name, value in content.items() if isinstance(content, dict) else ():
        yield from places(value, (*path, name))


def changed(generator: random.Random, content: dict[str, Any]) -> None:
    """Put something else in one place, take it away, or name it otherwise."""
    *parents, name = generator.choice(list(places(content)))
    for parent in parents:
        content = content[parent]
    act = generator.randrange(4)
    if act == 0:
        content.pop(name)
    elif act == 1:
        content[generator.choice([str(name) + "_", str(name)[:-1], "run", "", "$&"])] = content.pop(name)
    else:
        content[name] = copy.deepcopy(generator.choice([*WORDS, [content[name]], {name: content[name]}]))


def typed_over(generator: random.Random, text: str) -> str:
    """Some characters deleted, inserted or replaced."""
    for _ in range(generator.randrange(1, 4)):
        place = generator.randrange(len(text))
        text = text[:place] + generator.choice(["", *TEXTS]) + text[place + generator.randrange(4) :]
    return text


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs as far as they read their arguments and the protocol."""

    def act(arguments: argparse.Namespace) -> None:
        protocol = command.protocol_of(arguments)
        asked = (
            [RunKey(arguments.dataset, arguments.method, arguments.seed)] if "seed" in arguments else protocol.keys()
        )
        for key in asked:
            protocol.resolve(key)

    for verb in command.VERBS:
        monkeypatch.setitem(command.VERBS, verb, act)
    monkeypatch.setitem(command.VERBS, "compare", lambda arguments: None)


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_changed_configurations_are_taken_or_refused_in_one_line(tmp_path: Path, cpmlho: Command) -> None:
    generator, path, statuses = random.Random(3), tmp_path / "changed.json", Counter[int]()
    whole = yaml.safe_load(CONFIG.read_text())
    for _ in range(200):
        content = copy.deepcopy(whole)
        for _ in range(generator.randrange(1, 4)):
            changed(generator, content)
        path.write_text(json.dumps(content))
        status, said = cpmlho("tables", "--config", path)
        statuses[status] += 1
        assert (status, said) == (0, "") or (status == 2 and is_one_line(said, f"cpmlho: error: {path}: ")), said
    assert statuses.keys() == {0, 2}


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_mistyped_overlays_are_taken_or_refused_in_one_line(tmp_path: Path, cpmlho: Command) -> None:
    generator, statuses = random.Random(4), Counter[int]()
    whole, path = (ROOT / "workflow" / "quick.yaml").read_text(), tmp_path / "typed.yaml"
    for _ in range(100):
        path.write_text(typed_over(generator, whole), encoding="utf-8")
        status, said = cpmlho("tables", "--config", CONFIG, "--config", path)
        statuses[status] += 1
        assert (status, said) == (0, "") or (status == 2 and is_one_line(said)), said
    assert statuses.keys() == {0, 2}


@pytest.mark.usefixtures("light")
def test_changed_command_lines_are_taken_or_refused_in_one_line(cpmlho: Command) -> None:
    generator, statuses = random.Random(5), Counter[int]()
    lines = [
        ["run", "mnist", "cpmlho", "0", "--threads", "2", "--config", str(CONFIG)],
        ["run", "mnist", "cpmlho_cuts_only", "1", "--results-dir", "x", "--config", str(CONFIG)],
        ["data", "mnist", "--config", str(CONFIG)],
        ["compare", "a", "b", "--tolerance", "1"],
        *([verb, "--config", str(CONFIG)] for verb in ("tables", "figures", "report", "summary", "track", "ui")),
    ]
    words = [
        "",
        "-1",
        "1e9",
        "9" * 30,
        "nan",
        "--",
        "-",
        "ü",
        "x\n",
        "\udcff",
        "²",
        "--seed",
        "--help=1",
        "--config",
        "/",
    ]
    for _ in range(100):
        line = list(generator.choice(lines))
        place = generator.randrange(len(line))
        act = generator.randrange(3)
        line[place : place + (act > 0)] = (
            [] if act == 1 else [generator.choice([*words, line[place], line[place][:-1]])]
        )
        status, said = cpmlho(*line)
        statuses[status] += 1
        assert (status, said) == (0, "") or (status == 2 and is_one_line(said)), (line, said)
    assert statuses.keys() == {0, 2}
