"""Kills, full disks and second workflows: nothing finished is lost, and resumed runs end bit-identical."""

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
import yaml

from cpmlho.study.compare import numbers
from cpmlho.study.files import LOCK
from cpmlho.study.harness.checkpoint import CHECKPOINT
from cpmlho.study.harness.run import execute
from cpmlho.study.protocol import RunKey, load
from cpmlho.study.results import RESULT, run_dir
from runs import ROOT, content, start

RUNS_KILLED, WORKFLOWS_KILLED = 3, 1

pytestmark = pytest.mark.slow


class Workflow:
    """The smoke protocol with changes, in a folder of its own."""

    def __init__(self, folder, data_dir, **changes):
        self.folder = folder
        data = {"dir": data_dir, "folder": str(ROOT / "tests" / "data")}
        overlay = {**changes, "results_dir": "results", "data": data}
        (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
        self.files = [ROOT / "config.yaml", ROOT / "tests" / "smoke.yaml", folder / "overlay.yaml"]
        self.protocol = load(self.files)

    def start(self, *targets, **options):
        """Start the workflow; its errors are among what it says."""
        given = ("--cores", "2", *targets, "--configfile", *self.files[1:])
        return start(*given, folder=self.folder, errors=subprocess.STDOUT, **options)

    def until(self, process, said):
        """The output up to a line that holds `said`, or all of it."""
        lines = []
        for line in process.stdout:
            lines.append(line)
            if said in line:
                break
        return "".join(lines)

    def results(self):
        return [str(run_dir("results", key) / RESULT) for key in self.protocol.keys()]  # noqa: SIM118


def running(process):
    """The training processes of a workflow."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.cmdline()[1:4] == ["-m", "cpmlho", "run"]:
                    yield child


def test_a_run_killed_at_any_moment_ends_bit_identical(small, tmp_path):
    """How each method resumes is tried in tests/study/test_resuming.py."""
    run = {"datasets": ["mnist"], "methods": ["cpmlho"], "variants": [], "seeds": [0]}
    workflow = Workflow(tmp_path, small.data.dir, datasets={"mnist": {"epochs": 24}}, run=run)
    generator = random.Random("cpmlho")
    killed = Counter()
    said = ""
    while killed["run"] < RUNS_KILLED or killed["workflow"] < WORKFLOWS_KILLED:
        process = workflow.start("--retries", "100", *workflow.results())
        wait = generator.randrange(1, 6)
        for line in process.stdout:
            said += line
            wait -= "started," in line or "val loss" in line
            if wait:
                continue
            wait = generator.randrange(1, 6)
            time.sleep(generator.uniform(0, 0.5))  # into the middle of an epoch, a checkpoint, the last files
            children = list(running(process))
            if killed["run"] < RUNS_KILLED and children:
                generator.choice(children).kill()
                killed["run"] += 1
            elif killed["workflow"] < WORKFLOWS_KILLED and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed["workflow"] += 1
        if process.wait() == 0:  # before its time is up: begin again
            shutil.rmtree(tmp_path / "results" / "runs")
    assert "ignoring this checkpoint" not in said
    assert "resuming after" in said
    process = workflow.start(*workflow.results())
    said, _ = process.communicate()
    assert process.returncode == 0, said

    [key] = workflow.protocol.keys()
    execute(workflow.protocol.resolve(key), run_dir(tmp_path / "whole", key), [], print, 0.0)
    folder = run_dir(tmp_path / "results", key)
    assert content(folder) == content(run_dir(tmp_path / "whole", key))
    assert not (folder / CHECKPOINT).exists()

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    every = client.search_runs([client.get_experiment_by_name("cpmlho/results/mnist").experiment_id])
    live = [run.data.tags["workflow.job_key"] for run in every if "mlflow.parentRunId" not in run.data.tags]
    assert live == [str(key)]
    assert {run.info.status for run in every} <= {"FINISHED", "KILLED", "FAILED"}


def stopped(process, folder):
    """Check the last lines of a workflow that was stopped while it trained, and the files that it leaves."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "Stopped.\nWhat is finished is kept: the same command continues from there." in said
    assert "Traceback" not in said
    assert "rror:" not in said
    assert set(Counter(re.findall(r"(\S+) +stopped$", said, re.MULTILINE)).values()) <= {1}
    assert list(folder.rglob(CHECKPOINT))
    assert not list((folder / "results").rglob(f".{RESULT}*")), "a half-written file is left"


@pytest.fixture
def training(small, tmp_path):
    """A workflow whose runs last until they are stopped."""
    return Workflow(tmp_path, small.data.dir, datasets={"mnist": {"epochs": 400}}, run={"datasets": ["mnist"]})


def test_a_workflow_stopped_by_ctrl_c_says_how_to_continue_and_reports_no_error(training, tmp_path):
    process = training.start("all")
    training.until(process, "epoch 3/400")
    os.killpg(process.pid, signal.SIGINT)
    stopped(process, tmp_path)


def test_a_second_workflow_on_the_same_results_is_refused_in_one_line(training, tmp_path):
    """The first one runs in the background, and is stopped by SIGTERM."""
    first = training.start("all", background=True)
    training.until(first, "epoch 3/400")
    second = training.start("all")
    said, _ = second.communicate()
    assert second.returncode == 2
    assert re.findall("^Error: .*$", said, re.MULTILINE) == [
        "Error: results: another snakemake is at work on it; wait, or set another results_dir"
    ]
    first.send_signal(signal.SIGTERM)
    stopped(first, tmp_path)


def test_what_a_notebook_or_a_cluster_exports_changes_nothing_and_secrets_are_nowhere(small, tmp_path):
    run = {"datasets": ["mnist"], "methods": ["delta_stn"], "variants": [], "seeds": [0]}
    workflow = Workflow(tmp_path, small.data.dir, datasets={"mnist": {"epochs": 1}}, run=run)
    exported = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MLFLOW_TRACKING_URI": "http://user:s3/cr@et@127.0.0.1:9/",  # nobody answers there
        "MLFLOW_TRACKING_USERNAME": "user",
        "MLFLOW_TRACKING_PASSWORD": "pa55word",
        "OMP_NUM_THREADS": "64",
        "OMP_PROC_BIND": "close",
        "LC_ALL": "C",
    }
    process = workflow.start("all", **exported)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    [key] = workflow.protocol.keys()
    execute(workflow.protocol.resolve(key), run_dir(tmp_path / "plain", key), [], print, 0.0)
    assert numbers(run_dir(tmp_path / "results", key)) == numbers(run_dir(tmp_path / "plain", key))
    assert (tmp_path / "results" / "figures" / "SHA256SUMS").exists()
    assert "MLflow at http://127.0.0.1:9/ fails" in said
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(".snakemake" in path.parts for path in written)
    for secret in ("s3/cr", "cr@et", "pa55word"):
        assert secret not in said
        assert [path for path, text in written.items() if secret.encode() in text] == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system needs privileges")
    yield folder
    subprocess.run(["umount", folder], check=True)


def cli(workflow, *arguments, limit=None):
    """`python -m cpmlho VERB` on a workflow's protocol, below a limit on memory, in kB, if there is one."""
    shell = ["sh", "-c", f'ulimit -v {limit} && exec "$@"', "sh"] if limit else []
    configs = [text for file in workflow.files for text in ("--config", file)]
    command = [*shell, sys.executable, "-m", "cpmlho", *arguments, *configs]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    options = {"cwd": workflow.folder, "env": environment, "capture_output": True, "text": True}
    return subprocess.run(command, **options, check=False)


def refusal(process):
    """The one line of a command that ends with an error."""
    assert process.returncode == 2, process.stderr
    [line] = process.stderr.splitlines()
    assert line.startswith("cpmlho: error: ")
    return line


def test_a_full_disk_is_one_line_and_what_was_complete_stays(small, small_disk, tmp_path):
    fixed = RunKey("mnist", "fixed", 0)
    folder = run_dir(small_disk, fixed)
    execute(small.resolve(fixed), folder, [], print, 0.0)
    before = content(folder)
    workflow = Workflow(tmp_path, small.data.dir)
    full = cli(workflow, "run", "mnist", "cpmlho", "0", "--results-dir", small_disk)  # the checkpoint needs more room
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1].startswith("cpmlho: error: ")
    assert full.stderr.splitlines()[-1].endswith(os.strerror(errno.ENOSPC))
    assert "Traceback" not in full.stderr
    assert content(folder) == before
    left = {path.name for path in run_dir(small_disk, RunKey("mnist", "cpmlho", 0)).iterdir()}
    assert left <= {LOCK, CHECKPOINT}  # an earlier one that still had room


def test_a_second_process_waits_for_the_first(small, tmp_path):
    spec = small.resolve(RunKey("mnist", "cpmlho", 0))
    folder = run_dir(tmp_path, RunKey("mnist", "cpmlho", 0))
    folder.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, 2); print(); input()",
            folder / LOCK,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    holder.stdout.readline()
    lines = []

    def say(line):
        lines.append(line)
        holder.kill()  # the lock goes with the process

    execute(spec, folder, [], say, 0.0)
    holder.communicate()
    assert lines == [f"{folder}: locked by another process; waiting"]
    assert (folder / RESULT).exists()


def test_a_network_larger_than_memory_is_one_line_and_no_fault_of_mlflow(small, tmp_path):
    workflow = Workflow(tmp_path, small.data.dir, datasets={"mnist": {"network": {"hidden_units": 3_000_000}}})
    assert "can't allocate memory" in refusal(cli(workflow, "run", "mnist", "fixed", "0", limit=8_000_000))


def test_a_folder_that_cannot_be_used_is_one_line_and_no_fault_of_mlflow(small, tmp_path):
    place = "results/runs/mnist/fixed/seed0"
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("a file")
    assert place in refusal(cli(Workflow(tmp_path, small.data.dir), "run", "mnist", "fixed", "0"))
    assert (tmp_path / place).read_text() == "a file"


def test_too_little_memory_to_load_torch_is_one_line(small, tmp_path):
    refused = cli(Workflow(tmp_path, small.data.dir), "run", "mnist", "fixed", "0", limit=1_000_000)
    assert ".venv/bin/python" in refusal(refused)
