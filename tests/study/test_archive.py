"""The archive of runs: what comes out is what went in, and nothing that is there is touched."""

import hashlib
import io
import lzma
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_results import ROOT, history, result

from cpmlho.study.archive import ARCHIVE, CHECKSUM, pack, unpack
from cpmlho.study.protocol import load
from cpmlho.study.results import ResultError, to_csv
from cpmlho.study.spec import RunKey


def finished(dataset="mnist", seed=0):
    """A run's files by name."""
    spec = load([ROOT / "config.yaml"]).resolve(RunKey(dataset, "cpmlho", seed))
    outcome = result(spec=spec, hyperparameters=dict.fromkeys(spec.data.hyperparameters, 0.1), tables=["history.csv"])
    return {"result.json": outcome.model_dump_json().encode(), "history.csv": to_csv(history(0.1)).encode()}


RUN = "runs/mnist/cpmlho/seed0"
FILES = finished()


def quiet(line):
    pass


def made(root, runs):
    for folder, files in runs.items():
        (root / folder).mkdir(parents=True)
        for name, content in files.items():
            (root / folder / name).write_bytes(content)
    return root


def found(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.glob("runs/*/*/*/*")}


def moved(packed, to):
    """A folder with the archive alone."""
    to.mkdir()
    for name in (ARCHIVE, CHECKSUM):
        (to / name).write_bytes((packed / name).read_bytes())
    return to


@settings(max_examples=30)
@given(st.dictionaries(st.integers(0, 99), st.binary(max_size=300), min_size=1, max_size=4))
def test_what_comes_out_is_what_went_in(tmp_path_factory, contents):
    runs = {f"runs/mnist/cpmlho/seed{s}": finished(seed=s) | {"planes.csv": text} for s, text in contents.items()}
    here = made(tmp_path_factory.mktemp("a"), runs)
    pack(str(here), quiet)
    there = moved(here, tmp_path_factory.mktemp("b") / "there")
    unpack(str(there), quiet)
    assert found(there) == found(here)


def test_the_same_runs_give_the_same_bytes_and_a_checksum_that_others_can_check(tmp_path):
    other = {"runs/fashionmnist/cpmlho/seed3": finished("fashionmnist", 3)}
    first, second = made(tmp_path / "a", {RUN: FILES} | other), made(tmp_path / "b", other | {RUN: FILES})
    for each in (first, second):
        pack(str(each), quiet)
    content = (first / ARCHIVE).read_bytes()
    assert content == (second / ARCHIVE).read_bytes()
    assert (first / CHECKSUM).read_text() == f"{hashlib.sha256(content).hexdigest()}  {ARCHIVE}\n"


def test_what_is_not_finished_is_not_packed(tmp_path):
    unfinished = {"runs/mnist/cpmlho/seed1": {"history.csv": b"epoch\n"}}
    here = made(
        tmp_path / "here",
        {RUN: {**FILES, "checkpoint.pt": b"x", ".result.json.7": b"{", "._history.csv": b"\0"}} | unfinished,
    )
    pack(str(here), quiet)
    there = moved(here, tmp_path / "there")
    unpack(str(there), quiet)
    assert found(there) == {f"{RUN}/{name}": content for name, content in FILES.items()}


def test_a_run_that_is_there_stays_and_a_half_written_one_is_completed(tmp_path):
    here = made(tmp_path / "here", {RUN: FILES, "runs/mnist/cpmlho/seed1": finished(seed=1)})
    pack(str(here), quiet)
    (here / RUN / "result.json").write_text("newer")
    (here / "runs/mnist/cpmlho/seed1/result.json").unlink()
    (here / "runs/mnist/cpmlho/seed1/history.csv").write_text("half")
    lines = []
    unpack(str(here), lines.append)
    assert (here / RUN / "result.json").read_text() == "newer"
    assert (here / "runs/mnist/cpmlho/seed1/history.csv").read_bytes() == FILES["history.csv"]
    assert lines == [f"{here / 'runs'}: 2 runs in {ARCHIVE}: 1 unpacked, 1 already there"]


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda run: (run / "history.csv").unlink(), "history.csv: damaged, .*: it is not there"),
        (lambda run: (run / "result.json").write_text("{}"), "result.json: not a result"),
    ],
    ids=["without a table", "damaged"],
)
def test_a_run_that_is_not_whole_is_named_and_the_archive_stays_as_it_was(tmp_path, spoil, line):
    here = made(tmp_path / "here", {RUN: FILES})
    pack(str(here), quiet)
    before = (here / ARCHIVE).read_bytes()
    spoil(here / RUN)
    with pytest.raises(ResultError, match=line):
        pack(str(here), quiet)
    assert (here / ARCHIVE).read_bytes() == before


def test_one_that_is_damaged_or_missing_is_named(tmp_path):
    with pytest.raises(ResultError, match="no finished run to pack"):
        pack(str(tmp_path), quiet)
    with pytest.raises(ResultError, match=f"{ARCHIVE}: No such file"):
        unpack(str(tmp_path), quiet)
    here = made(tmp_path / "here", {RUN: FILES})
    pack(str(here), quiet)
    there = moved(here, tmp_path / "there")
    (there / ARCHIVE).write_bytes((here / ARCHIVE).read_bytes()[:-9])
    with pytest.raises(ResultError, match="damaged"):
        unpack(str(there), quiet)
    assert found(there) == {}


@pytest.mark.parametrize("name", ["../outside/result.json", "runs/../../result.json", "/runs/a/b/seed0/result.json"])
def test_one_that_would_write_elsewhere_is_refused(tmp_path, name):
    buffer = io.BytesIO()
    with lzma.open(buffer, "wb") as compressed, tarfile.open(fileobj=compressed, mode="w") as tar:
        member = tarfile.TarInfo(name)
        tar.addfile(member, io.BytesIO())
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / ARCHIVE).write_bytes(buffer.getvalue())
    (tmp_path / "here" / CHECKSUM).write_text(f"{hashlib.sha256(buffer.getvalue()).hexdigest()}  {ARCHIVE}\n")
    with pytest.raises(ResultError, match="is not the folder of a run"):
        unpack(str(tmp_path / "here"), quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
