"""The command line: each verb by hand, and its errors in one line with exit status 2."""

import json
import os
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cpmlho.study.protocol import RunKey, load
from cpmlho.study.results import RESULT, read_result, run_dir

ROOT = Path(__file__).parents[2]
VERBS = ["data", "run", "tables", "figures", "report", "summary", "track", "ui", "compare"]


def cpmlho(*arguments, cwd, **environment):
    """Run a verb in `cwd`, its MLflow store there too."""
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{cwd}/mlflow.db", "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "cpmlho", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def overlay(tmp_path):
    """Configuration files of one tiny protocol with its own folders."""
    changes = {
        "results_dir": str(tmp_path / "results"),
        "data": {"dir": str(tmp_path / "data"), "folder": str(ROOT / "tests/data")},
        "run": {"datasets": ["mnist"], "methods": ["delta_stn"], "variants": [], "seeds": [0]},
    }
    path = tmp_path / "overlay.yaml"
    path.write_text(json.dumps(changes))  # JSON is YAML
    return ["--config", ROOT / "config.yaml", "--config", ROOT / "tests/smoke.yaml", "--config", path]


@pytest.mark.slow
def test_every_verb_by_hand(tmp_path, overlay):
    for arguments in (["data", "mnist"], ["run", "mnist", "delta_stn", "0"], ["tables"], ["figures"], ["track"]):
        done = cpmlho(*arguments, *overlay, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    result = read_result(run_dir(tmp_path / "results", RunKey("mnist", "delta_stn", 0)) / RESULT)
    assert result.status == "done"
    assert "smoke test" in (tmp_path / "results/tables/table1.md").read_text()
    assert (tmp_path / "results/figures/SHA256SUMS").exists()
    assert (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_progress_is_plain_lines(tmp_path, overlay):
    cpmlho("data", "mnist", *overlay, cwd=tmp_path)
    lines = cpmlho("run", "mnist", "random_search", "0", *overlay, cwd=tmp_path).stderr.splitlines()
    assert [line.split()[1] for line in lines] == ["mnist/random_search/seed0"] * len(lines)
    said = [" ".join(line.split()[2:]) for line in lines]
    assert said[0] == "started, 2 trials of 2 epochs"
    assert said[1].startswith("trial 1/2 epoch 1/2 0:")
    assert said[2].startswith("trial 1/2 epoch 2/2 val loss ")
    assert said[2].endswith(" left")
    assert said[-1].startswith("done, final val loss ")


def test_the_version_is_the_installed_one(tmp_path):
    said = cpmlho("--version", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (0, f"cpmlho {metadata.version('cpmlho')}\n")


def test_a_page_of_no_runs_is_not_served(tmp_path):
    said = cpmlho("ui", "--config", ROOT / "config.yaml", cwd=tmp_path)
    assert said.returncode == 2
    assert said.stderr.startswith(f"cpmlho: error: {tmp_path}/mlflow.db: there are no runs in MLflow yet; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_page_of_a_server_is_named_without_a_password(tmp_path):
    uri = "http://somebody:s3cret@127.0.0.1:9"  # nobody answers there
    said = cpmlho("ui", "--config", ROOT / "config.yaml", cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert said.returncode == 0, said.stderr
    assert "MLflow: http://127.0.0.1:9" in said.stderr
    assert "s3cret" not in said.stdout + said.stderr


@pytest.mark.slow
def test_help_names_every_verb(tmp_path):
    assert all(verb in cpmlho("--help", cwd=tmp_path).stdout for verb in VERBS)
    for verb in VERBS:
        assert cpmlho(verb, "--help", cwd=tmp_path).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["data", "mnits", "--config", ROOT / "config.yaml"],
            "unknown dataset mnits; did you mean mnist? Known: mnist,",
        ),
        (["run", "mnist", "sgd", "0", "--config", ROOT / "config.yaml"], "unknown method sgd; known: random_search"),
        (
            ["run", "mnist", "cpmhlo", "0", "--config", ROOT / "config.yaml"],
            "unknown method cpmhlo; did you mean cpmlho?",
        ),
        (["run", "mnist"], "the following arguments are required: method, seed"),
        *(
            (
                ["run", "mnist", "cpmlho", seed],
                f"argument seed: must be a whole number from 0 to 2147483647, got '{seed}'",
            )
            for seed in ("-1", "2147483648", "1.0", "010", "9" * 5000)
        ),
        (
            ["run", "mnist", "cpmlho", "0", "--threads", "08"],
            "argument --threads: must be a whole number from 1 to 32768",
        ),
        (["tables"], "config.yaml: cannot be read: No such file or directory"),
        (["tables", "--config", "~/no-such-file.yaml"], f"{Path.home()}/no-such-file.yaml: cannot be read: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path, arguments, says):
    done = cpmlho(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("cpmlho: error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_is_gone_changes_no_status(tmp_path):
    command = [sys.executable, "-m", "cpmlho", "tables"]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, cwd=tmp_path, stderr=full, check=False).returncode == 2


def test_a_working_directory_that_is_gone_is_one_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-c", "import os; os.rmdir(os.getcwd()); from cpmlho.__main__ import main; main()"]
    done = subprocess.run([*command, "tables"], cwd=gone, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "cpmlho: error: the working directory is gone; change to one that is there\n"


def suggested(done):
    """The command that an error ends with."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return shlex.split(done.stderr.rpartition(": ")[2])


@pytest.mark.slow
def test_the_suggested_command_fetches_the_missing_data(tmp_path, overlay):
    run = ["run", "mnist", "delta_stn", "0", *overlay]
    done = cpmlho(*run, cwd=tmp_path)
    assert "train-images-idx3-ubyte: no such file; fetch the data: " in done.stderr
    assert not (tmp_path / "results").exists()
    again = suggested(done)
    assert again[1:4] == ["-m", "cpmlho", "data"]
    subprocess.run(again, cwd=tmp_path, check=True, capture_output=True)
    assert cpmlho(*run, cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_every_suggested_command_names_the_configuration(tmp_path, overlay):
    """A folder's name may hold what a shell would take apart."""
    strange = tmp_path / "it's $HOME"
    strange.mkdir()
    (strange / "mine.yaml").write_text((tmp_path / "overlay.yaml").read_text())
    options = [*map(str, overlay[:-1]), str(strange / "mine.yaml")]
    results = tmp_path / "results"
    for verb, wanted in (
        ("unpack", ["pack"]),
        ("tables", ["run", "DATASET", "METHOD", "SEED"]),
        ("figures", ["tables"]),
    ):
        done = cpmlho(verb, *options, cwd=tmp_path)
        command = done.stderr.rstrip().removesuffix(", or snakemake").rpartition(": ")[2]
        assert shlex.split(command)[3:] == [*wanted, *options], verb
    (results / "runs.tar.xz").touch()
    for verb in ("tables", "figures", "report", "track"):
        assert suggested(cpmlho(verb, *options, cwd=tmp_path))[3:] == ["unpack", *options], verb


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", [["data", "mnist"], ["run", "mnist", "delta_stn", "0"], ["tables"], ["report"], ["pack"]]
)
def test_results_that_are_no_folder_are_one_line_before_anything_is_made(tmp_path, overlay, verb):
    (tmp_path / "results").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    done = cpmlho(*verb, *overlay, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"cpmlho: error: results_dir: {tmp_path}/results is a link to nowhere, ")
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_complete_data_are_used_as_they_are_and_nothing_is_written(tmp_path, overlay):
    """A later record would make every run stale, and the data may lie where nobody may write."""
    (tmp_path / "moved").symlink_to("data")
    cpmlho("data", "mnist", *overlay, cwd=tmp_path)
    places = [tmp_path / "results/data/mnist.json", tmp_path / "data/MNIST/raw"]
    before = [place.stat().st_mtime_ns for place in places]
    (tmp_path / "more.yaml").write_text("data: {dir: moved, sources: [registry], folder: null}")
    done = cpmlho("data", "mnist", *overlay, "--config", "more.yaml", cwd=tmp_path)
    assert done.stderr == "mnist: four files verified, in place\n"
    assert [place.stat().st_mtime_ns for place in places] == before


@pytest.mark.slow
def test_the_protocol_may_be_json(tmp_path, overlay):
    protocol = load([ROOT / "config.yaml", ROOT / "tests/smoke.yaml", tmp_path / "overlay.yaml"])
    (tmp_path / "protocol.json").write_text(protocol.model_dump_json())
    cpmlho("data", "mnist", *overlay, cwd=tmp_path)
    done = cpmlho("run", "mnist", "delta_stn", "0", "--config", "protocol.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = read_result(run_dir(tmp_path / "results", RunKey("mnist", "delta_stn", 0)) / RESULT)
    assert written.spec == protocol.resolve(RunKey("mnist", "delta_stn", 0))


def test_a_damaged_protocol_is_named_with_its_line(tmp_path):
    (tmp_path / "protocol.json").write_text("{\n")
    done = cpmlho("tables", "--config", "protocol.json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("cpmlho: error: protocol.json line 2: not valid JSON: ")
