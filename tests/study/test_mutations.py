"""Random damage to files, settings and command lines: each is one line that names it, or does no harm."""

from __future__ import annotations

import argparse
import copy
import fcntl
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_tracking import GRADIENT, SEARCH

import cpmlho.__main__ as command
from cpmlho.study.events import Metrics
from cpmlho.study.files import LOCK, write_text
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
Outcome = tuple[int, str]  # exit status and what was said


@pytest.fixture
def cpmlho(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The command, in this process."""
    monkeypatch.setenv("MPLBACKEND", "agg")

    def act(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["cpmlho", *map(str, arguments)])
        capfd.readouterr()
        try:
            command.main()
            status: Any = 0
        except SystemExit as end:
            status = end.code or 0
        said = capfd.readouterr()
        return status, said.err

    return act


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
    """Results of two methods with two seeds, and one run of another dataset beside them; `over.yaml` asks for them."""
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
    """A word in the place of another."""
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
def test_a_damaged_result_file_is_one_line_that_names_it(
    verb: str, results: Path, cpmlho: Callable[..., Outcome]
) -> None:
    over = ["--config", CONFIG, "--config", results.parent / "over.yaml"]
    arguments = [results / "runs", results / "runs"] if verb == "compare" else over
    assert cpmlho(verb, *arguments)[0] == 0
    generator = random.Random(1)
    paths = [path for key in KEYS for path in sorted(run_dir(results, key).glob("[a-z]*"))]
    for damage in DAMAGES.values():
        path = generator.choice(paths)
        whole = path.read_bytes()
        path.write_bytes(damage(generator, whole))
        status, said = cpmlho(verb, *arguments)
        assert status == 0 or (status == 2 and is_one_line(said, f"cpmlho: error: {path}: ")), said
        path.write_bytes(whole)


WRONG_RESULTS: dict[str, Callable[[Path, Path], str]] = {
    "of a future version": lambda path, other: path.read_text().replace('"status"', '"energy": 1.5,\n "status"'),
    "of another dataset": lambda path, other: other.read_text(),
    "of another seed": lambda path, other: (path.parents[1] / "seed1" / RESULT).read_text(),
    "with a loss that its history does not have": lambda path, other: path.read_text().replace(": 0.1,", ": 0.0001,"),
    "done without a loss": lambda path, other: path.read_text().replace(": 0.1,", ": NaN,"),
    "with a number as text": lambda path, other: path.read_text().replace('"steps": 2786', '"steps": "many"'),
}


@pytest.mark.parametrize("wrong", WRONG_RESULTS.values(), ids=WRONG_RESULTS)
def test_a_result_that_is_not_the_runs_own_is_refused(
    wrong: Callable[[Path, Path], str], results: Path, cpmlho: Callable[..., Outcome]
) -> None:
    path = run_dir(results, KEYS[2]) / RESULT
    path.write_text(wrong(path, run_dir(results, OTHER) / RESULT))
    over = ["--config", CONFIG, "--config", results.parent / "over.yaml"]
    for arguments in (["tables", *over], ["compare", results, results]):
        status, said = cpmlho(*arguments)
        assert status == 2
        assert is_one_line(said, f"cpmlho: error: {path}: "), said
    assert not (results / "tables").exists()


@pytest.mark.slow
def test_damage_to_what_was_made_is_one_line_that_says_what_to_make_again(
    results: Path, cpmlho: Callable[..., Outcome]
) -> None:
    """Also what is left where `tables` or `figures` was cut short: some files new, some old."""
    over = ["--config", CONFIG, "--config", results.parent / "over.yaml"]
    for verb in ("tables", "figures", "report"):
        assert cpmlho(verb, *over)[0] == 0
    generator = random.Random(2)
    for kind, verb in (("tables/*.csv", "figures"), ("figures/*.svg", "report")):
        paths = [path for path in sorted(results.glob(kind)) if path.stat().st_size > 200]  # some tables have no row
        for damage in DAMAGES.values():
            path = generator.choice(paths)
            whole = path.read_bytes()
            path.write_bytes(damage(generator, whole))
            if path.read_bytes() != whole:
                status, said = cpmlho(verb, *over)
                assert status == 2
                folder = path.parent
                assert is_one_line(said, f"cpmlho: error: {folder}: {path.name}: ")
                assert f"make the {folder.name} again: " in said
            path.write_bytes(whole)
    assert cpmlho("report", *over)[0] == 0


def test_what_killed_processes_left_goes_with_the_next_write(tmp_path: Path) -> None:
    left, earlier = tmp_path / ".a.txt.0123cdef", tmp_path / ".a.txt.4711"  # as earlier versions named it
    at_work, others = tmp_path / ".a.txt.89abcdef", tmp_path / ".a.txt.bak"
    for path in (left, earlier, at_work, others):
        path.write_text("half")
    with at_work.open() as file:  # another process, maybe in another container
        fcntl.flock(file, fcntl.LOCK_EX)
        write_text(tmp_path / "a.txt", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.txt", at_work, others])


def test_many_that_write_one_file_take_no_others_for_left_behind(tmp_path: Path) -> None:
    """As containers do on a shared folder, whose processes have the same numbers."""
    path, texts = tmp_path / "a.txt", ["a" * 9999, "b" * 9999]
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(write_text, path, texts[i % 2]) for i in range(200)]
        for job in jobs:
            job.result()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


# Kills


def killed(act: Callable[[], object], seconds: float) -> bool:
    """Do something in a process of its own that is ended, wherever it is, after so many seconds of CPU time."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-4))
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            act()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def files(folder: Path) -> dict[str, bytes]:
    """All that can be seen."""
    every = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in every}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.name != LOCK]


@pytest.mark.slow
def test_a_verb_killed_at_any_moment_leaves_whole_files_and_ends_at_the_same_bytes(
    results: Path, cpmlho: Callable[..., Outcome]
) -> None:
    over = ["--config", CONFIG, "--config", results.parent / "over.yaml"]
    generator, kills = random.Random(6), Counter[str]()
    took = {}
    for verb in ("tables", "tables", "figures", "report"):  # first what is imported
        began = time.process_time()
        assert cpmlho(verb, *over)[0] == 0
        took[verb] = time.process_time() - began
    whole = files(results)
    for verb, made in (("tables", "tables"), ("figures", "figures"), ("report", "report.html")):
        for attempt in range(4):
            if attempt % 2:  # what is there is replaced, or made for the first time
                shutil.rmtree(results / made, ignore_errors=True)
                (results / "report.html").unlink(missing_ok=True)
            kills[verb] += killed(lambda verb=verb: cpmlho(verb, *over), generator.uniform(0, took[verb]))
            found = files(results)
            assert {name: whole[name] for name in found} == found
        assert cpmlho(verb, *over)[0] == 0
        assert cpmlho("report", *over)[0] == 0
        assert files(results) == whole
        assert leftovers(results) == []
    assert all(kills.values())


# Configurations and command lines


WORDS = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2**63,
    1.5,
    1e400,
    -0.0,
    float("nan"),
    "",
    "x",
    "../..",
    "ü\n",
    [],
    {},
    [[]],
    {"x": {}},
]
TEXTS = [
    *(
        "\t",
        "- ",
        ": ",
        "[",
        "}",
        "#",
        "&a ",
        "*a",
        "!!python/object:os.system ",
        "---\n",
        "<<: 1\n",
        "? ",
        "|\n",
        "%YAML 9\n",
    ),
    *("2020-01-01", "0x", "1_000", "1:2:3", "\0", "\ufeff", "'", '"', "null", "\u2028", "@", "\n", "&a [*a]"),
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
    """Characters taken away, put in, or put in the place of others."""
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
def test_500_changed_configurations_are_taken_or_refused_in_one_line(
    tmp_path: Path, cpmlho: Callable[..., Outcome]
) -> None:
    generator, path, statuses = random.Random(3), tmp_path / "changed.json", Counter[int]()
    whole = yaml.safe_load(CONFIG.read_text())
    for _ in range(500):
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
def test_250_mistyped_overlays_are_taken_or_refused_in_one_line(tmp_path: Path, cpmlho: Callable[..., Outcome]) -> None:
    generator, statuses = random.Random(4), Counter[int]()
    whole, path = (ROOT / "workflow" / "quick.yaml").read_text(), tmp_path / "typed.yaml"
    for _ in range(250):
        path.write_text(typed_over(generator, whole), encoding="utf-8")
        status, said = cpmlho("tables", "--config", CONFIG, "--config", path)
        statuses[status] += 1
        assert (status, said) == (0, "") or (status == 2 and is_one_line(said)), said
    assert statuses.keys() == {0, 2}


@pytest.mark.usefixtures("light")
def test_250_changed_command_lines_are_taken_or_refused_in_one_line(cpmlho: Callable[..., Outcome]) -> None:
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
        "~",
        "/",
    ]
    for _ in range(250):
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
