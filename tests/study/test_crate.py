"""The published run as a Workflow Run RO-Crate, read back with the library that others read it with."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate
from test_reporting import ROOT, load, write

from cpmlho.study.archive import pack
from cpmlho.study.crate import write_crate
from cpmlho.study.protocol import Protocol
from cpmlho.study.report.write import write_figures, write_page, write_tables
from cpmlho.study.results import ResultError
from cpmlho.study.spec import RunKey

pytestmark = pytest.mark.slow

RUN = {"datasets": ["mnist"], "methods": ["delta_stn", "cpmlho"], "variants": [], "seeds": [0, 1]}
CONFIGS = [Path("config.yaml"), Path("workflow/published.yaml")]


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    protocol = load(tmp_path_factory.mktemp("there") / "mine", run=RUN)
    for hour, key in enumerate(protocol.keys()):
        times = {"started": f"2026-01-02T0{hour}:00:00+00:00", "ended": f"2026-01-02T0{hour}:30:00+00:00"}
        write(protocol, key, 0.3, versions={"torch": "2.14.1"}, **times)
    for make in (write_tables, write_figures, write_page):
        make(protocol)
    pack(protocol.results_dir, quiet)
    return protocol


@pytest.fixture
def export(published: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.chdir(ROOT)

    def made(name: str) -> Path:
        write_crate(published, CONFIGS, tmp_path / name, quiet)
        return tmp_path / name

    return made


def types(entity: object) -> list[str]:
    kind = entity["@type"]  # type: ignore[index]
    return kind if isinstance(kind, list) else [kind]


def test_it_has_what_the_profile_requires(export: Callable[[str], Path]) -> None:
    crate = ROCrate(export("crate"))
    root, workflow = crate.root_dataset, crate.mainEntity
    assert {each.id for each in root["conformsTo"]} == {
        "https://w3id.org/ro/wfrun/process/0.5",
        "https://w3id.org/ro/wfrun/workflow/0.5",
        "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
    }
    assert {"name", "description", "datePublished", "license"} <= set(root.properties())
    assert root["datePublished"] == "2026-01-02T03:30:00+00:00"
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} == set(types(workflow))
    assert workflow.id == "Snakefile"
    assert workflow["programmingLanguage"]["name"] == "Snakemake"
    (action,) = root["mentions"]
    assert types(action) == ["CreateAction"]
    assert action["instrument"] is workflow
    assert action["agent"]["name"]
    assert (action["startTime"], action["endTime"]) == ("2026-01-02T00:00:00+00:00", "2026-01-02T03:30:00+00:00")
    objects, results = ({each.id for each in action[name]} for name in ("object", "result"))
    assert {"config.yaml", "workflow/published.yaml", "requirements.lock"} <= objects
    assert {"mine/report.html", "mine/runs.tar.xz", "mine/tables/table1.csv", "mine/figures/figure1.svg"} <= results


def test_each_file_is_there_with_its_size_and_no_other(export: Callable[[str], Path]) -> None:
    folder = export("crate")
    files = {each.id: each for each in ROCrate(folder).data_entities}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*files, "ro-crate-metadata.json"}
    for name, entity in files.items():
        size = str((folder / name).stat().st_size)
        assert entity.get("contentSize", size) == size


def test_it_is_the_same_twice_and_names_no_place(export: Callable[[str], Path], tmp_path: Path) -> None:
    one, two = ((export(name) / "ro-crate-metadata.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert (export("one") / "ro-crate-metadata.json").read_bytes() == one  # a crate that is there is replaced
    for place in (str(ROOT), str(tmp_path), str(tmp_path.parent)):
        assert place.encode() not in one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_crate_that_cannot_be_replaced_stays(
    export: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = export("mine") / "ro-crate-metadata.json"
    metadata.write_text("the old one")
    rename, calls = Path.rename, []

    def second_fails(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="quota"):
        export("mine")
    assert metadata.read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_with_something_else_is_left_alone(export: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ResultError, match="not empty, and no crate"):
        export("mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_what_is_missing_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = load(tmp_path / "results", run=RUN)
    write(protocol, RunKey("mnist", "cpmlho", 0), 0.3)
    monkeypatch.chdir(ROOT)
    with pytest.raises(ResultError, match=r"runs.tar.xz: missing; make it first: the verbs tables, .* and pack"):
        write_crate(protocol, CONFIGS, tmp_path / "crate", quiet)
    for make in (write_tables, write_figures, write_page):
        make(protocol)
    pack(protocol.results_dir, quiet)
    with pytest.raises(ResultError, match=r"absent.yaml: missing"):
        write_crate(protocol, [Path("absent.yaml")], tmp_path / "crate", quiet)
    (tmp_path / "results" / "runs.tar.xz").write_bytes(b"no archive")
    with pytest.raises(ResultError, match=r"runs.tar.xz: damaged"):
        write_crate(protocol, CONFIGS, tmp_path / "crate", quiet)
    assert not (tmp_path / "crate").exists()
