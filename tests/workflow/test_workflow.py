"""The workflow as its user sees it: what it would run, refuses, makes, repeats, and leaves alone."""

import itertools
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from cpmlho.study import files, results
from cpmlho.study import protocol as config
from cpmlho.study.protocol import RunKey
from cpmlho.study.settings import IDX_FILES
from runs import ROOT, snakemake

OVERLAYS = ("tests/smoke.yaml", "seed.yaml")
REPORT = {"tables": 1, "figures": 1, "report": 1, "summary": 1, "all": 1}
METHODS = {"random_search", "bayesian_optimization", "delta_stn", "cpmlho"}  # that the protocol runs
FUTURE = 4_000_000_000  # a file time in 2096
pytestmark = pytest.mark.slow  # Snakemake starts in each


def planned(dry_run):
    """Return how many jobs of each rule a dry run lists, and which runs."""
    assert dry_run.returncode == 0, dry_run.stderr
    said = dry_run.stdout + dry_run.stderr
    if "Nothing to be done" in said:
        return {}, set()
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)}
    assert counts.pop("total") == sum(counts.values())
    runs = re.findall(r"^Job \d+: (\w+): ([\w.]+), seed (\d+)$", said, re.MULTILINE)
    assert len(runs) == counts.get("run", 0)
    return counts, {RunKey(dataset, method, int(seed)) for dataset, method, seed in runs}


def copy_tree(to):
    """Copy what a checkout needs to run."""
    for name in ("workflow", "profiles", "src", "tests/data"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("Snakefile", "config.yaml", "tests/smoke.yaml"):
        shutil.copy(ROOT / name, to / name)
    return to


def write_yaml(path, **content):
    path.write_text(yaml.safe_dump(content))
    return path


# What it would run


def test_the_protocol_is_two_datasets_four_methods_three_seeds_and_figure_2(tmp_path):
    """Planned without importing a heavy package; the runs take turns on the GPUs."""
    for package in ("torch", "mlflow", "skopt", "matplotlib"):  # pandas a plug-in of Snakemake's may need
        (tmp_path / f"{package}.py").write_text(f"raise RuntimeError('the workflow imports {package}')")
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200'\necho '  MIG 1g.18gb'\necho 'GPU 1: NVIDIA H200'\n")
    listing.chmod(0o755)
    later = {"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"]}
    paths = {name: f"{tmp_path}{os.pathsep}{value}" for name, value in later.items()}
    dry_run = snakemake("-n", "-p", "all", folder=tmp_path, CUDA_VISIBLE_DEVICES=None, **paths)
    counts, runs = planned(dry_run)
    assert counts == {"data": 2, "run": 36, **REPORT}
    methods = Counter((key.dataset, key.method) for key in runs)
    assert set(methods.values()) == {3}
    assert {method for dataset, method in methods if dataset == "fashionmnist"} == METHODS
    gpus = re.findall(r"CUDA_VISIBLE_DEVICES=(\S*) \S+ -m cpmlho run", dry_run.stdout + dry_run.stderr)
    assert Counter(gpus) == {"0": 18, "1": 18}


def test_overlays_are_merged_in_their_order_and_figures_are_a_target_of_their_own(tmp_path):
    write_yaml(tmp_path / "a.yaml", run={"seeds": [5], "variants": []}, results_dir="a")
    write_yaml(tmp_path / "b.yaml", run={"seeds": [6], "methods": ["fixed", "stn"]})
    given = ("overlay=[a.yaml, b.yaml]", "run={methods: [stn], datasets: [mnist]}")
    counts, runs = planned(snakemake("-n", "figures", "--config", *given, folder=tmp_path))
    assert counts == {"data": 1, "run": 1, "tables": 1, "figures": 1}
    assert runs == {RunKey("mnist", "stn", 6)}


# What it refuses


def a_wrong_setting(folder):
    (folder / "mine.yaml").write_text("data: {timout: 3}")
    return r"mine\.yaml: data\.timout: unknown setting.*"


def a_link_to_nothing(folder):
    (folder / "results").symlink_to("gone")
    return "results_dir: results is a link to gone.*"


def a_folder_of_snakemakes_that_is_none(folder):
    """As one that root left, in a container or with sudo; root itself may write everywhere."""
    (folder / ".snakemake").write_text("a file")
    return r"--directory: \.snakemake is not a folder.*"


@pytest.mark.parametrize("mistake", [a_wrong_setting, a_link_to_nothing, a_folder_of_snakemakes_that_is_none])
def test_a_mistake_is_one_line_before_anything_starts(tmp_path, mistake):
    (tmp_path / "mine.yaml").touch()
    expected = mistake(tmp_path)
    before = set(tmp_path.iterdir())
    refused = snakemake("--cores", "1", "all", "--config", "overlay=mine.yaml", folder=tmp_path)
    assert refused.returncode == 2
    assert re.fullmatch(f"Error: {expected}", refused.stderr.splitlines()[-1])
    assert "Traceback" not in refused.stderr
    assert set(tmp_path.iterdir()) - before <= {tmp_path / ".snakemake"}


# What it does when a run fails

STAND_IN = """
import json, os, signal, sys
from pathlib import Path

from cpmlho.study.made import SUMS
from cpmlho.study.protocol import load
from cpmlho.study.report.figures import KINDS, made_by
from cpmlho.study.report.tables import TABLES

verb, *arguments = sys.argv[1:]
protocol = load([Path(arguments[arguments.index("--config") + 1])])
results = protocol.results_dir
if verb == "run":
    dataset, method, seed = arguments[:3]
    folder = Path(results, "runs", dataset, method, f"seed{seed}")
    names = ["result.json", "history.csv"]
    print("training", method, os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"], file=sys.stderr, flush=True)
    if method == os.environ.get("BROKEN"):
        print("cpmlho: error: the disk is full", file=sys.stderr)
        sys.exit(2)
    if method == os.environ.get("KILLED"):
        os.kill(os.getpid(), signal.SIGKILL)
else:
    folder = Path(results, verb)
    tables = [SUMS, *(f"{name}.{kind}" for name, kinds in TABLES.items() for kind in kinds)]
    figures = [SUMS, *(f"{name}.{kind}" for name in made_by(protocol) for kind in KINDS)]
    names = {"report": ["../report.html"], "tables": tables, "figures": figures}
    names = {**names, "data": [f"{arguments[0]}.json"]}.get(verb, [])
folder.mkdir(parents=True, exist_ok=True)
for name in names:
    (folder / name).write_text("")
"""


def test_a_failed_run_costs_no_other_and_its_reason_is_said_once(tmp_path):
    tree = copy_tree(tmp_path / "a checkout with spaces")
    (tree / "src" / "cpmlho" / "__main__.py").write_text(STAND_IN)
    write_yaml(tree / "mine.yaml", run={"datasets": ["mnist"], "variants": [], "seeds": [0]}, results_dir="my results")
    failed = snakemake(
        *("--cores", "4", "all", "--config", "overlay=mine.yaml"),
        folder=tree,
        tree=tree,
        BROKEN="delta_stn",
        KILLED="cpmlho",
    )
    assert failed.returncode != 0, "tee has hidden the exit status"
    errors = re.findall("^Error: .*", failed.stderr, re.MULTILINE)
    assert sorted(errors) == [
        "Error: mnist/cpmlho/seed0: killed by SIGKILL, perhaps out of memory",
        "Error: mnist/delta_stn/seed0: the disk is full",
    ]
    said, ending = failed.stdout.split("Not everything was made:\n")
    assert "Error" not in said
    *logs, last = ending.splitlines()
    log = "my results/logs/run/mnist/{}/seed0.log"
    assert sorted(logs) == [f"mnist/{name}/seed0: {log.format(name)}" for name in ("cpmlho", "delta_stn")]
    assert last == "What is finished is kept: the same command continues from there."
    assert (tree / log.format("delta_stn")).read_text().startswith("training delta_stn 1 PASSIVE\n")
    done = {path.parts[-3] for path in (tree / "my results" / "runs").rglob("result.json")}
    assert done == {"random_search", "bayesian_optimization"}


# What it makes, repeats and leaves alone


class Checkout:
    """A copy of the project, to run the smoke protocol with one seed and a tracking store of its own."""

    def __init__(self, folder):
        self.folder = copy_tree(folder)
        write_yaml(folder / "seed.yaml", run={"seeds": [0], "variants": ["cpmlho_dropout0_0.1", "cpmlho_values"]})
        self.store = f"sqlite:///{folder / 'smoke.db'}"
        self.protocol = self.load()
        self.keys = list(self.protocol.keys())
        self.results = folder / self.protocol.results_dir

    def load(self, *overlays):
        return config.load([self.folder / path for path in ("config.yaml", *OVERLAYS, *overlays)])

    def snakemake(self, *arguments, overlays=(), tree=None, **changes):
        given = ("--config", *(f"overlay={path}" for path in (*OVERLAYS, *overlays)))
        changes = {"MLFLOW_TRACKING_URI": self.store, **changes}
        return snakemake(*arguments, *given, folder=self.folder, tree=tree or self.folder, **changes)

    def plan(self, *overlays, **options):
        return planned(self.snakemake("-n", "all", overlays=overlays, **options))

    def with_dependents(self, keys):
        """The runs, and those that take their values from one of them."""
        sources = {key: self.protocol.resolve(key).values_of for key in self.keys}
        return {*keys, *(key for key, source in sources.items() if source and key._replace(method=source) in keys)}

    def of(self, algorithm):
        return self.with_dependents({key for key in self.keys if self.protocol.resolve(key).algorithm == algorithm})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    run = checkout.snakemake("--cores", "2", "all")
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-8000:]
    return checkout


def test_every_run_leaves_its_files(finished):
    assert set(itertools.product(("mnist", "fashionmnist"), METHODS)) <= {(k.dataset, k.method) for k in finished.keys}
    for key in finished.keys:
        folder = results.run_dir(finished.results, key)
        result = results.read_result(folder / results.RESULT)
        assert result.spec == results.with_values(finished.protocol.resolve(key), finished.results)
        assert result.status == "done"
        assert set(results.METRICS) <= set(results.read_rows(folder / results.HISTORY)[0])
        own = {"fixed": set(), "delta_stn": {results.HYPERPARAMETERS}, "cpmlho": {results.HYPERPARAMETERS}}
        assert own.get(result.spec.algorithm, {results.TRIALS}) <= {path.name for path in folder.iterdir()}, key
        assert {path.name for path in folder.glob(".*")} <= {files.LOCK}, "half-written files are left"
    for dataset in finished.protocol.run.datasets:
        record = json.loads((finished.results / "data" / f"{dataset}.json").read_text())
        assert record["sha256"] == finished.protocol.datasets[dataset].sha256


def test_tables_figures_and_page_are_made_of_all_runs(finished):
    rows = results.read_rows(finished.results / "tables" / "runs.csv")
    assert Counter(RunKey(row["dataset"], row["method"], row["seed"]) for row in rows) == Counter(finished.keys)
    for number in (1, 2, 3):
        assert results.read_rows(finished.results / "tables" / f"table{number}.csv")
        assert finished.protocol.note in (finished.results / "tables" / f"table{number}.md").read_text()
    for number in (1, 2, 3):
        assert (finished.results / "figures" / f"figure{number}.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (finished.results / "report.html").read_text()


def test_mlflow_holds_one_finished_entry_for_each_run(finished):
    from mlflow import MlflowClient

    client = MlflowClient(finished.store)
    experiments = {each.name: each.experiment_id for each in client.search_experiments()}
    entries = client.search_runs(list(experiments.values()))
    own = [each for each in entries if "mlflow.parentRunId" not in each.data.tags]
    keys = Counter(each.data.tags["workflow.job_key"] for each in own if each.info.status == "FINISHED")
    assert {str(key): keys[str(key)] for key in finished.keys} == {str(key): 1 for key in finished.keys}


def test_the_report_of_snakemake_is_made_offline(finished):
    report = finished.folder / "report.html"
    run = finished.snakemake("--report", report, "all")
    assert run.returncode == 0, run.stderr
    for name in ("table1.csv", "table3.tex", "figure1.svg", "figure2.png"):
        assert name in report.read_text()


@pytest.fixture
def copied(finished, tmp_path):
    """A new checkout with the results of the finished one, and nothing else of it."""
    checkout = Checkout(tmp_path / "copied")
    shutil.copytree(finished.results, checkout.results)
    return checkout


def test_copied_results_are_continued_whatever_their_file_times(copied):
    """MLflow has none of their runs: the last lines say so, and name the remedy."""
    for number, path in enumerate(sorted(copied.results.rglob("*"))):
        os.utime(path, (FUTURE * (number % 2), FUTURE * (number % 2)))
    assert copied.plan() == (REPORT, set())
    made = copied.snakemake("--cores", "2", "all")
    assert made.returncode == 0, made.stderr
    count = len(copied.keys)
    assert re.search(rf"^{count} of {count} finished runs are missing in MLflow; add them: .* track", made.stdout, re.M)
    assert copied.plan() == ({}, set())


def test_a_result_that_does_not_fit_the_plan_is_made_again(copied):
    wrong = {key: copied.results / "runs" / Path(str(key)) / "result.json" for key in copied.keys[::4]}
    changes = [{"numerics": 1}, {"plugins": {"method": "another file"}}, {"spec": {}}]
    for change, path in zip(changes, wrong.values(), strict=True):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    expected = copied.with_dependents(wrong)
    assert copied.plan() == ({"run": len(expected), **REPORT}, expected)


def test_settings_repeat_the_runs_of_their_method_alone_and_a_seed_adds_its_own(finished):
    methods = finished.protocol.methods
    changes = {
        "random_search": {"trials": methods["random_search"].trials + 1},
        "cpmlho": {"valid_steps": methods["cpmlho"].valid_steps + 1},
    }
    half = finished.folder / "elsewhere"  # as a killed fetch leaves it; the record is of the earlier place
    shutil.copytree(finished.folder / finished.protocol.data.dir, half)
    (half / "MNIST" / "raw" / IDX_FILES[0]).unlink()
    content = {"methods": changes, "run": {"seeds": [0, 1]}, "data": {"dir": "elsewhere"}}
    overlay = write_yaml(finished.folder / "change.yaml", **content)
    added = set(finished.load(overlay).keys()) - set(finished.keys)
    expected = added | finished.of("random_search") | finished.of("cpmlho")
    assert 0 < len(added) < len(expected)
    assert finished.plan(overlay) == ({"data": 1, "run": len(expected), **REPORT}, expected)


def test_another_tracking_store_repeats_the_summary_alone(finished):
    overlay = write_yaml(finished.folder / "change.yaml", tracking={"uri": "sqlite:///other.db"})
    assert finished.plan(overlay) == ({"summary": 1, "all": 1}, set())


@pytest.fixture
def edited(finished):
    """A function that changes a module of the finished checkout until the test ends."""
    before = {}

    def edit(module):
        path = finished.folder / "src" / "cpmlho" / "study" / module
        before[path] = path.read_text()
        path.write_text(before[path] + "\nEDITED = True\n")

    yield edit
    for path, text in before.items():
        path.write_text(text)


def test_the_code_of_the_report_repeats_the_report(finished, edited):
    edited("report/tables/table1.py")
    assert finished.plan() == (REPORT, set())


def test_file_times_links_other_code_and_the_place_of_the_data_repeat_nothing(finished, edited, tmp_path):
    """`NUMERICS`, and not the code, says whether the numbers have changed."""
    edited("data.py")
    edited("tracking/place.py")
    (tmp_path / "link").symlink_to(finished.folder)
    data = {"timeout": 11, "sources": ["folder", "registry"], "dir": "elsewhere"}
    overlay = write_yaml(finished.folder / "change.yaml", data=data)
    sources = [path for name in ("src", "workflow", "config.yaml") for path in (finished.folder / name).rglob("*")]
    for path in sources:
        os.utime(path, (FUTURE, FUTURE))  # as an archive from another time zone has them
    assert finished.plan(overlay, tree=tmp_path / "link") == ({}, set())
