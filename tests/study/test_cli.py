"""The command line: each verb by hand, and its errors in one line with exit status 2."""

import json
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import cpmlho.__main__ as program
from cpmlho.study.protocol import RunKey
from cpmlho.study.results import RESULT, read_result, run_dir
from cpmlho.study.tracking import entry

ROOT = Path(__file__).parents[2]
CONFIG = ["--config", ROOT / "config.yaml"]
COMMAND = [sys.executable, "-m", "cpmlho"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of the test's own, with an MLflow store in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def overlay(tmp_path):
    """Options with the configuration files of one tiny protocol that has its own folders."""
    changes = {
        "results_dir": str(tmp_path / "results"),
        "data": {"dir": str(tmp_path / "data"), "folder": str(ROOT / "tests/data")},
        "run": {"datasets": ["mnist"], "methods": ["random_search"], "variants": [], "seeds": [0]},
    }
    path = tmp_path / "overlay.yaml"
    path.write_text(json.dumps(changes))  # JSON is YAML
    return [*CONFIG, "--config", ROOT / "tests/smoke.yaml", "--config", path]


def is_one_line(said):
    return said.startswith("cpmlho: error: ") and said.endswith("\n") and said.count("\n") == 1


@pytest.mark.slow
def test_every_verb_by_hand(tmp_path, overlay, cpmlho):
    said = {}
    for verb, *arguments in (
        ["data", "mnist"],
        ["run", "mnist", "random_search", "0"],
        ["tables"],
        ["figures"],
        ["track"],
    ):
        status, said[verb] = cpmlho(verb, *arguments, *overlay)
        assert status == 0, said[verb]
    result = read_result(run_dir(tmp_path / "results", RunKey("mnist", "random_search", 0)) / RESULT)
    assert result.status == "done"
    assert "smoke test" in (tmp_path / "results/tables/table1.md").read_text()
    assert (tmp_path / "results/figures/SHA256SUMS").exists()
    assert (tmp_path / "mlflow.db").exists()

    lines = said["run"].splitlines()
    assert [line.split()[1] for line in lines] == ["mnist/random_search/seed0"] * len(lines)
    progress = [" ".join(line.split()[2:]) for line in lines]
    assert progress[0] == "started, 2 trials of 2 epochs"
    assert progress[1].startswith("trial 1/2 epoch 1/2 0:")
    assert progress[2].startswith("trial 1/2 epoch 2/2 val loss ")
    assert progress[2].endswith(" left")
    assert progress[-1].startswith("done, final val loss ")


def test_the_version_is_the_installed_one():
    said = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"cpmlho {metadata.version('cpmlho')}\n"


def test_help_names_every_verb(capsys):
    said = program.parser().format_help()
    for verb in program.VERBS:
        assert verb in said
        with pytest.raises(SystemExit, match="0"):
            program.parser().parse_args([verb, "--help"])
        assert f"cpmlho {verb}" in capsys.readouterr().out


def test_a_page_of_no_runs_is_not_served(tmp_path, cpmlho):
    status, said = cpmlho("ui", *CONFIG)
    assert status == 2
    assert said.startswith(f"cpmlho: error: {tmp_path}/mlflow.db: there are no runs in MLflow yet; ")
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_a_server_is_named_without_a_password(monkeypatch, cpmlho):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:s3cret@127.0.0.1:9")  # nobody answers there
    monkeypatch.setenv(entry.RETRIES, "0")
    status, said = cpmlho("ui", *CONFIG)
    assert status == 0, said
    assert "MLflow: http://127.0.0.1:9" in said
    assert "s3cret" not in said


SEED = "argument seed: must be a whole number from 0 to 2147483647, got "


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data", "mnits", *CONFIG], "unknown dataset mnits; did you mean mnist? Known: mnist,"),
        (["run", "mnist", "sgd", "0", *CONFIG], "unknown method sgd; known: random_search"),
        (["run", "mnist", "cpmhlo", "0", *CONFIG], "unknown method cpmhlo; did you mean cpmlho?"),
        (["run", "mnist"], "the following arguments are required: method, seed"),
        *((["run", "mnist", "cpmlho", n], f"{SEED}{n!r}") for n in ("-1", "2147483648", "1.0", "010", "9" * 5000)),
        (
            ["run", "mnist", "cpmlho", "0", "--threads", "08"],
            "argument --threads: must be a whole number from 1 to 32768",
        ),
        (["tables"], "config.yaml: cannot be read: No such file or directory"),
        (["tables", "--config", "~/no-such-file.yaml"], f"{Path.home()}/no-such-file.yaml: cannot be read: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path, cpmlho, arguments, says):
    status, said = cpmlho(*arguments)
    assert status == 2
    assert is_one_line(said)
    assert says in said
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_protocol_is_named_with_its_line(cpmlho):
    Path("protocol.json").write_text("{\n")
    status, said = cpmlho("tables", "--config", "protocol.json")
    assert status == 2
    assert said.startswith("cpmlho: error: protocol.json line 2: not valid JSON: ")


def test_a_terminal_that_is_gone_changes_no_status():
    with open("/dev/full", "w") as full:
        assert subprocess.run([*COMMAND, "tables"], stderr=full, check=False).returncode == 2


def test_a_working_directory_that_is_gone_is_one_line(tmp_path, monkeypatch, cpmlho):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    message = "cpmlho: error: the working directory is gone; change to one that is there\n"
    assert cpmlho("tables") == (2, message)


def suggested(outcome):
    """The command that an error ends with."""
    status, said = outcome
    assert (status, is_one_line(said)) == (2, True), said
    return shlex.split(said.rpartition(": ")[2].rstrip().removesuffix(", or snakemake"))


@pytest.mark.slow
def test_the_suggested_command_fetches_the_missing_data(tmp_path, overlay, cpmlho):
    run = ["run", "mnist", "fixed", "0", *overlay]
    outcome = cpmlho(*run)
    assert "train-images-idx3-ubyte: no such file; fetch the data: " in outcome[1]
    assert not (tmp_path / "results").exists()
    subprocess.run(suggested(outcome), check=True, capture_output=True)
    assert cpmlho(*run)[0] == 0


def test_every_suggested_command_names_the_configuration(tmp_path, overlay, cpmlho):
    """A folder's name may hold what a shell would take apart."""
    strange = tmp_path / "it's $HOME"
    strange.mkdir()
    (strange / "mine.yaml").write_text((tmp_path / "overlay.yaml").read_text())
    options = [*map(str, overlay[:-1]), str(strange / "mine.yaml")]
    for verb, wanted in (
        ("unpack", ["pack"]),
        ("tables", ["run", "DATASET", "METHOD", "SEED"]),
        ("figures", ["tables"]),
    ):
        assert suggested(cpmlho(verb, *options))[3:] == [*wanted, *options], verb
    (tmp_path / "results" / "runs.tar.xz").touch()
    for verb in ("tables", "figures", "report", "track"):
        assert suggested(cpmlho(verb, *options))[3:] == ["unpack", *options], verb


@pytest.mark.parametrize(
    "verb", [["data", "mnist"], ["run", "mnist", "delta_stn", "0"], ["tables"], ["report"], ["pack"]]
)
def test_results_that_are_no_folder_are_one_line_before_anything_is_made(tmp_path, overlay, cpmlho, verb):
    (tmp_path / "results").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    status, said = cpmlho(*verb, *overlay)
    assert status == 2
    assert is_one_line(said)
    assert said.startswith(f"cpmlho: error: results_dir: {tmp_path}/results is a link to nowhere, ")
    assert sorted(tmp_path.iterdir()) == before


def test_complete_data_are_used_as_they_are_and_nothing_is_written(tmp_path, overlay, cpmlho):
    """A later record would make every run stale, and the data may lie where nobody may write."""
    (tmp_path / "moved").symlink_to("data")
    assert cpmlho("data", "mnist", *overlay)[0] == 0
    places = [tmp_path / "results/data/mnist.json", tmp_path / "data/MNIST/raw"]
    before = [place.stat().st_mtime_ns for place in places]
    Path("more.yaml").write_text("data: {dir: moved, sources: [registry], folder: null}")
    assert cpmlho("data", "mnist", *overlay, "--config", "more.yaml") == (0, "mnist: four files verified, in place\n")
    assert [place.stat().st_mtime_ns for place in places] == before
