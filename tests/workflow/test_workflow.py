"""The workflow as its user sees it: what it would run, refuses, makes, repeats, and leaves alone."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from cpmlho.study import files, results
from cpmlho.study import protocol as config
from cpmlho.study.protocol import RunKey

ROOT = Path(__file__).parents[2]
SMOKE = Path("tests", "smoke.yaml")
REPORT = {"tables": 1, "figures": 1, "report": 1, "summary": 1, "all": 1}
pytestmark = pytest.mark.slow  # Snakemake starts in each
METHODS = {"random_search", "bayesian_optimization", "delta_stn", "cpmlho"}  # that the protocol runs


def snakemake(*arguments, folder, tree=ROOT, **changes):
    """Run the workflow of `tree` in `folder`, on the CPU, with the package beside it; None unsets a variable."""
    changes = {"PYTHONPATH": str(tree / "src"), "CUDA_VISIBLE_DEVICES": "", "MLFLOW_TRACKING_URI": None, **changes}
    environment = {name: value for name, value in (os.environ | changes).items() if value is not None}
    command = [sys.executable, "-m", "snakemake", "--snakefile", tree / "Snakefile", *arguments]
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 1800}
    return subprocess.run(command, check=False, **options)


def planned(dry_run):
    """How many jobs of each rule a dry run lists, and which runs."""
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
    """What a checkout needs to run."""
    for name in ("workflow", "profiles", "src", "tests/data"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("Snakefile", "config.yaml", "tests/smoke.yaml"):
        shutil.copy(ROOT / name, to / name)
    return to


def write_yaml(path, **content):
    path.write_text(yaml.safe_dump(content))
    return path


# What it would run


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The dry run of config.yaml as it is, where importing a heavy package is an error."""
    poison = tmp_path_factory.mktemp("poison")
    for package in ("torch", "mlflow", "skopt", "matplotlib"):  # pandas a plug-in of Snakemake's may need
        (poison / f"{package}.py").write_text(f"raise RuntimeError('the workflow imports {package}')")
    path = f"{poison}{os.pathsep}{ROOT / 'src'}"
    return snakemake("-n", "all", folder=tmp_path_factory.mktemp("empty"), PYTHONPATH=path)


def test_the_protocol_is_two_datasets_four_methods_three_seeds_and_figure_2(full):
    counts, runs = planned(full)
    assert counts == {"data": 2, "run": 36, **REPORT}
    methods = Counter((key.dataset, key.method) for key in runs)
    assert set(methods.values()) == {3}
    assert {method for dataset, method in methods if dataset == "fashionmnist"} == METHODS
    assert len(methods) == 2 * 4 + 4


def test_tables_and_figures_are_targets_of_their_own(tmp_path):
    for target, made in (("tables", {"tables": 1}), ("figures", {"tables": 1, "figures": 1})):
        assert planned(snakemake("-n", target, folder=tmp_path))[0] == {"data": 2, "run": 36, **made}


def test_the_quick_protocol_runs_everything_in_small(tmp_path):
    counts, runs = planned(snakemake("-n", "all", "--configfile", ROOT / "workflow/quick.yaml", folder=tmp_path))
    assert counts == {"data": 2, "run": 9, **REPORT}
    methods = {(key.dataset, key.method) for key in runs}
    assert set(itertools.product(("mnist", "fashionmnist"), METHODS)) < methods
    protocol = config.load([ROOT / "config.yaml", ROOT / "workflow/quick.yaml"])
    assert protocol.results_dir == "results/quick"
    assert protocol.note.startswith("CUT DOWN (make quick)")


def test_the_published_protocol_sets_each_reading_beside_its_comparators(tmp_path):
    """With ten seeds, at the paper's split and on random ones; with five at more learning rates."""
    overlay = f"overlay={ROOT / 'workflow/published.yaml'}"
    counts, runs = planned(snakemake("-n", "all", "--config", overlay, folder=tmp_path))
    seeds = Counter((key.dataset, key.method) for key in runs)
    compared = ["fixed", "delta_stn", "stn", "cpmlho", "cpmlho_uncentred"]
    of_split = [f"split_random_{name}" for name in compared]
    of_rate = [f"rate_{rate}_{name}" for rate in ("half", "twice", "four_times") for name in compared[1:]]
    of_rate += ["rate_quarter_stn", "rate_quarter_cpmlho_uncentred"]
    for dataset in ("mnist", "fashionmnist"):
        assert {seeds[dataset, name] for name in (*compared, *of_split, *METHODS)} == {10}
        assert {seeds[dataset, name] for name in of_rate} == {5}
    assert {seeds["fashionmnist", f"rate_eighth_{name}"] for name in ("stn", "cpmlho_uncentred")} == {5}
    assert counts == {"data": 2, "run": sum(seeds.values()), **REPORT}


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("auto", None, {"0": 18, "1": 18}),
        ("auto", "GPU-5c1d,7", {"GPU-5c1d": 18, "7": 18}),
        ("auto", "", {"": 36}),
        ("cpu", None, {"": 36}),
    ],
)
def test_the_runs_take_turns_on_the_gpus_that_may_be_used(tmp_path, device, visible, expected):
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200'\necho '  MIG 1g.18gb'\necho 'GPU 1: NVIDIA H200'\n")
    listing.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ("-n", "-p", "all", "--config", f"device={device}")
    dry_run = snakemake(*command, folder=tmp_path, PATH=path, CUDA_VISIBLE_DEVICES=visible)
    gpus = re.findall(r"CUDA_VISIBLE_DEVICES=(\S*) \S+ -m cpmlho run", dry_run.stdout + dry_run.stderr)
    assert Counter(gpus) == expected


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (3, 2), (4, 4), (16, 4)])
def test_trials_of_random_search_go_side_by_side(tmp_path, cores, expected):
    dry_run = snakemake("-n", "-p", "all", "--cores", str(cores), folder=tmp_path)
    said = dry_run.stdout + dry_run.stderr
    threads = re.findall(r"-m cpmlho run \w+ ([\w.]+) .* --threads (\d+)", said)
    assert len(threads) == 36
    assert {int(number) for method, number in threads if method == "random_search"} == {expected}
    assert {int(number) for method, number in threads if method != "random_search"} == {1}


def test_hundreds_of_variants_need_no_longer_commands(tmp_path):
    names = [f"theta_{number}" for number in range(900)]
    variants = {name: {"base": "cpmlho", "datasets": ["mnist"], "seeds": [0]} for name in names}
    write_yaml(tmp_path / "many.yaml", variants=variants, run={"variants": names})
    dry_run = snakemake("-n", "-p", "all", "--config", "overlay=many.yaml", folder=tmp_path)
    counts, runs = planned(dry_run)
    assert counts == {"data": 2, "run": 24 + 900, **REPORT}
    assert {key.method for key in runs} > set(names)
    commands = [line for line in dry_run.stdout.splitlines() if "-m cpmlho" in line]
    assert len(commands) == 24 + 900 + 2 + 4
    assert max(map(len, commands)) < 1000


# What it refuses


def refusal(run):
    """The lines that a command was refused with, without Snakemake's line about the profile."""
    assert run.returncode != 0
    said = (run.stdout + run.stderr).splitlines()
    return [line for line in said if line.strip() and not line.startswith("Using workflow specific profile")]


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("data: {timout: 3}", "data.timout: unknown setting"),
        ("run: {methods: [grid_search]}", "run.methods.0: unknown method grid_search; known: random_search, .*"),
        ("run: {seeds: []}", "run.seeds: List should have at least 1 item .*"),
        (
            "datasets: {mnist: {hyperparameters: {dropout0: {start: 1.2}}}}",
            "datasets.mnist.hyperparameters.dropout0: low < start < high must hold, got 0.0, 1.2, 0.95",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_before_anything_starts(tmp_path, overlay, expected):
    (tmp_path / "mine.yaml").write_text(overlay)
    run = snakemake("--cores", "1", "all", "--configfile", "mine.yaml", folder=tmp_path)
    [line] = refusal(run)
    assert re.fullmatch(rf"Error: mine\.yaml: {expected}", line)
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.yaml", ".snakemake"}


def test_a_key_given_twice_is_named_with_its_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("note: a\nnote: b\n")
    [line] = refusal(snakemake("-n", "all", "--configfile", "mine.yaml", folder=tmp_path))
    assert line == "Error: mine.yaml line 2: not valid YAML: note is given twice"


def test_the_command_line_is_checked_as_the_files_are(tmp_path):
    [line] = refusal(snakemake("-n", "all", "--config", "run={seeds: [0, 1.5]}", folder=tmp_path))
    assert line.startswith("Error: --config: run.seeds.1: ")
    counts, _ = planned(snakemake("-n", "all", "--config", "run={seeds: [7], variants: []}", folder=tmp_path))
    assert counts["run"] == 8


@pytest.mark.parametrize(
    ("content", "expected"),
    [("run: [\n", "config.yaml line 2: not valid YAML: .*"), (None, "config.yaml: cannot be read: .*")],
)
def test_a_broken_config_yaml_is_one_line(tmp_path, content, expected):
    shutil.copy(ROOT / "Snakefile", tmp_path)
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    run = snakemake("-n", "all", folder=tmp_path, tree=tmp_path, PYTHONPATH=str(ROOT / "src"))
    [line] = refusal(run)
    assert re.fullmatch(f"Error: {expected}", line)


@pytest.mark.parametrize(
    ("overlay", "content", "expected"),
    [
        ("mine.yaml", b"run: [\n", "mine.yaml line 2: not valid YAML: .*"),
        ("mine.yaml", b"note: \xff\n", "mine.yaml: byte 6 is not UTF-8; save the file as UTF-8"),
        ("mine.yaml", b"[1, 2]\n", "mine.yaml: must be a mapping of settings, got list"),
        ("mine.yaml", None, "mine.yaml: cannot be read: No such file or directory"),
        ("[mine.yaml, also.yaml]", b"note: x\n", "also.yaml: cannot be read: No such file or directory"),
        ("{a: b}", b"", "--config overlay: must be a file, or a list of files such as .*"),
        ("3", b"", "--config overlay: must be a file, or a list of files such as .*"),
    ],
)
def test_an_overlay_that_cannot_be_used_is_one_line(tmp_path, overlay, content, expected):
    if content is not None:
        (tmp_path / "mine.yaml").write_bytes(content)
    run = snakemake("--cores", "1", "all", "--config", f"overlay={overlay}", folder=tmp_path)
    [line] = refusal(run)
    assert re.fullmatch(f"Error: {expected}", line)


def test_overlays_are_merged_in_their_order(tmp_path):
    (tmp_path / "a.yaml").write_text("run: {seeds: [5], variants: []}")
    (tmp_path / "b.yaml").write_text("run: {seeds: [6, 7]}")
    counts, _ = planned(snakemake("-n", "all", "--config", "overlay=[a.yaml, b.yaml]", folder=tmp_path))
    assert counts["run"] == 2 * 4 * 2


def test_overlays_given_one_by_one_are_all_used(tmp_path):
    (tmp_path / "a.yaml").write_text("run: {seeds: [5, 6, 7, 8], variants: []}")
    (tmp_path / "b.yaml").write_text("run: {datasets: [mnist]}")
    counts, _ = planned(snakemake("-n", "all", "--config", "overlay=a.yaml", "overlay=b.yaml", folder=tmp_path))
    assert counts["run"] == 4 * 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config", "note=a", "note=b"], "Error: --config note: is given twice"),
        (
            ["--config", "overlay=a.yaml", "--config", "overlay=b.yaml"],
            "Error: --config: is given twice; give all its values after one",
        ),
        (
            ["--configfile", "a.yaml", "--configfile", "b.yaml"],
            "Error: --configfile: is given twice; give all its values after one",
        ),
    ],
)
def test_what_is_given_twice_is_refused(tmp_path, arguments, expected):
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("note: x\n")
    assert refusal(snakemake("-n", "all", *arguments, folder=tmp_path)) == [expected]


def test_a_configfile_that_snakemake_itself_cannot_read_starts_nothing(tmp_path):
    """Snakemake reads it before the workflow is asked, so these words are its own."""
    (tmp_path / "mine.yaml").write_text("run: [")
    said = refusal(snakemake("--cores", "1", "all", "--configfile", "mine.yaml", folder=tmp_path))
    assert said[0] == "WorkflowError:"
    assert said[1].startswith("Config file is not valid JSON or YAML.")
    said = refusal(snakemake("--cores", "1", "all", "--configfile", "missing.yaml", folder=tmp_path))
    assert said[-1] == "FileNotFoundError: [Errno 2] No such file or directory: 'missing.yaml'"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


# What it does when a run fails

STAND_IN = """
import os, sys
from pathlib import Path

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
    print("training", method, os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"], file=sys.stderr)
    if method == os.environ.get("BROKEN"):
        sys.exit("the disk is full")
else:
    folder = Path(results, verb)
    tables = [f"{name}.{kind}" for name, kinds in TABLES.items() for kind in kinds]
    figures = [f"{name}.{kind}" for name in made_by(protocol) for kind in KINDS]
    names = {"report": ["../report.html"], "tables": tables, "figures": figures}
    names = {**names, "data": [f"{arguments[0]}.json"]}.get(verb, [])
folder.mkdir(parents=True, exist_ok=True)
for name in names:
    (folder / name).write_text("")
"""


def test_a_failed_run_costs_no_other_and_the_same_command_goes_on(tmp_path):
    tree = copy_tree(tmp_path / "a checkout with spaces")
    (tree / "src" / "cpmlho" / "__main__.py").write_text(STAND_IN)
    write_yaml(tree / "mine.yaml", run={"datasets": ["mnist"], "variants": [], "seeds": [0]}, results_dir="my results")
    command = ("--cores", "4", "all", "--configfile", "mine.yaml")

    failed = snakemake(*command, folder=tree, tree=tree, BROKEN="delta_stn")
    assert failed.returncode != 0, "tee has hidden the exit status"
    assert failed.stdout.endswith(
        "\nNot everything was made.\n"
        "mnist/delta_stn/seed0: the disk is full\n"
        "  its log: my results/logs/run/mnist/delta_stn/seed0.log\n"
        "What is finished is kept: the same command goes on from there.\n"
    )
    after_its_start = failed.stderr[failed.stderr.index("4 runs to train, about 1 MB of disk.") :]
    assert "Error: mnist/delta_stn/seed0: the disk is full\n  its log: " in after_its_start
    assert len(after_its_start) < 1000
    log = tree / "my results" / "logs" / "run" / "mnist" / "delta_stn" / "seed0.log"
    assert log.read_text() == "training delta_stn 1 PASSIVE\nthe disk is full\n"
    done = {path.parts[-3] for path in (tree / "my results" / "runs").rglob("result.json")}
    assert done == {"random_search", "bayesian_optimization", "cpmlho"}

    counts, runs = planned(snakemake("-n", *command[2:], folder=tree, tree=tree))
    assert runs == {RunKey("mnist", "delta_stn", 0)}
    assert counts == {"run": 1, **REPORT}
    finished = snakemake(*command, folder=tree, tree=tree)
    assert finished.returncode == 0, finished.stderr
    assert "1 run to train (3 are done), about 1 MB of disk." in finished.stderr
    assert "1 of 1 runs\n" in finished.stderr
    *_, report, tables, figures, mlflow = finished.stdout.splitlines()
    assert report == "Report:  my results/report.html"
    assert tables.startswith("Tables:  my results/tables ")
    assert figures.startswith("Figures: my results/figures ")
    assert mlflow == "MLflow:  make ui"


# What it makes, repeats and leaves alone


class Checkout:
    """A copy of the project that has run the smoke protocol once, with a tracking store of its own."""

    def __init__(self, folder):
        self.folder = copy_tree(folder)
        self.store = f"sqlite:///{folder / 'smoke.db'}"
        self.protocol = self.load()
        self.keys = list(self.protocol.keys())
        self.results = folder / self.protocol.results_dir

    def load(self, *overlays):
        return config.load([self.folder / path for path in ("config.yaml", SMOKE, *overlays)])

    def snakemake(self, *arguments, overlays=()):
        files = ("--configfile", SMOKE, *overlays)
        return snakemake(*arguments, *files, folder=self.folder, tree=self.folder, MLFLOW_TRACKING_URI=self.store)

    def plan(self, *overlays):
        return planned(self.snakemake("-n", "all", overlays=overlays))

    def of(self, *algorithms):
        return {key for key in self.keys if self.protocol.resolve(key).algorithm in algorithms}

    def behind(self, algorithm):
        """The runs of an algorithm, and those that take their values from one of them."""
        own = self.of(algorithm)
        sources = {key: key._replace(method=self.protocol.resolve(key).values_of) for key in self.of("fixed")}
        return own | {key for key, source in sources.items() if source in own}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    run = checkout.snakemake("--cores", "2", "all")
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-8000:]
    return checkout


def test_the_smoke_protocol_has_all_methods_and_datasets(finished):
    wanted = set(itertools.product(("mnist", "fashionmnist"), METHODS))
    assert {(key.dataset, key.method) for key in finished.keys} >= wanted


def test_every_run_leaves_its_files(finished):
    siblings = {
        "random_search": {results.TRIALS},
        "bayesian_optimization": {results.TRIALS},
        "fixed": set(),
        "delta_stn": {results.HYPERPARAMETERS},
        "cpmlho": {results.HYPERPARAMETERS},  # the first plane comes later than the smoke protocol ends
    }
    for key in finished.keys:
        folder = results.run_dir(finished.results, key)
        result = results.read_result(folder / results.RESULT)
        assert result.spec == results.with_values(finished.protocol.resolve(key), finished.results)
        assert result.status == "done"
        assert set(results.METRICS) <= set(results.read_rows(folder / results.HISTORY)[0])
        assert siblings[result.spec.algorithm] <= {path.name for path in folder.iterdir()}, key
        assert {path.name for path in folder.glob(".*")} <= {files.LOCK}, "half-written files are left"


def test_the_data_are_recorded(finished):
    for dataset in finished.protocol.run.datasets:
        record = (finished.results / "data" / f"{dataset}.json").read_text()
        json.loads(record)
        assert all(checksum in record for checksum in finished.protocol.datasets[dataset].sha256.values())


def test_tables_and_figures_are_made_of_all_runs(finished):
    rows = results.read_rows(finished.results / "tables" / "runs.csv")
    assert Counter(RunKey(row["dataset"], row["method"], row["seed"]) for row in rows) == Counter(finished.keys)
    for number in (1, 2, 3):
        assert results.read_rows(finished.results / "tables" / f"table{number}.csv")
        assert finished.protocol.note in (finished.results / "tables" / f"table{number}.md").read_text()
        assert "tabular" in (finished.results / "tables" / f"table{number}.tex").read_text()
    assert "<h1>CPMLHO: " in (finished.results / "report.html").read_text()
    for number in (1, 2, 3):
        assert (finished.results / "figures" / f"figure{number}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (finished.results / "figures" / f"figure{number}.svg").read_text()
        assert (finished.results / "figures" / f"figure{number}.csv").read_text()


def test_mlflow_holds_one_live_run_for_each(finished):
    from mlflow import MlflowClient

    client = MlflowClient(finished.store)
    live = Counter()
    for dataset in finished.protocol.run.datasets:
        experiment = client.get_experiment_by_name(f"cpmlho/{dataset}")
        for run in client.search_runs([experiment.experiment_id], "tags.`workflow.superseded` = 'false'"):
            assert run.info.status == "FINISHED"
            if "mlflow.parentRunId" not in run.data.tags:
                live[run.data.tags["workflow.job_key"]] += 1
    assert live == Counter(map(str, finished.keys))


def test_the_report_is_made_offline(finished):
    report = finished.folder / "report.html"
    run = finished.snakemake("--report", report, "all")
    assert run.returncode == 0, run.stderr
    for name in ("table1.csv", "table3.tex", "figure1.svg", "figure2.png"):
        assert name in report.read_text()


def test_what_is_finished_is_not_repeated(finished):
    for path in (finished.folder / "src").rglob("*.py"):
        path.touch()  # as a checkout or a copy does; only the content counts
    assert finished.plan() == ({}, set())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_setting_of_one_method_repeats_that_method_alone(finished, method):
    before = finished.protocol.methods[method]
    name = "trials" if hasattr(before, "trials") else "valid_steps"
    overlay = write_yaml(finished.folder / "change.yaml", methods={method: {name: getattr(before, name) + 1}})
    assert finished.plan(overlay) == ({"run": len(finished.behind(method)), **REPORT}, finished.behind(method))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"note": "another"}, REPORT),
        ({"tracking": {"uri": "sqlite:///other.db"}}, {"summary": 1, "all": 1}),
        ({"data": {"timeout": 11, "sources": ["folder", "registry"]}}, {}),
        ({"data": {"dir": "elsewhere"}}, {}),
    ],
)
def test_a_setting_that_decides_no_number_repeats_no_run(finished, change, expected):
    counts, runs = finished.plan(write_yaml(finished.folder / "change.yaml", **change))
    assert (counts, runs) == (expected, set())


def test_another_seed_adds_its_runs_alone(finished):
    seeds = finished.protocol.run.seeds
    overlay = write_yaml(finished.folder / "change.yaml", run={"seeds": [*seeds, max(seeds) + 1]})
    counts, runs = finished.plan(overlay)
    assert runs == set(finished.load(overlay).keys()) - set(finished.keys)
    assert counts == {"run": len(finished.keys) // len(seeds), **REPORT}


@pytest.fixture
def edit(finished):
    """Change the code of a module; undone after the test."""
    originals = {}

    def change(module):
        path = finished.folder / "src" / "cpmlho" / module
        originals[path] = path.read_text()
        path.write_text(originals[path] + "\nEDITED = True\n")

    yield change
    for path, content in originals.items():
        path.write_text(content)


@pytest.mark.parametrize("method", [name for name in config.METHODS if name not in ("stn", "cpmlho_uncentred")])
def test_the_code_of_one_method_repeats_that_method_alone(finished, edit, method):
    edit(f"study/methods/{method}.py")
    assert finished.plan() == ({"run": len(finished.behind(method)), **REPORT}, finished.behind(method))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("study/networks.py", {"run"}),
        ("study/data.py", {"data", "run"}),
        ("study/report/tables/table1.py", set()),
        ("study/tracking/store.py", None),
    ],
)
def test_the_code_of_a_part_repeats_what_depends_on_it(finished, edit, module, expected):
    edit(module)
    every = {"data": len(finished.protocol.run.datasets), "run": len(finished.keys)}
    counts, _ = finished.plan()
    assert counts == ({} if expected is None else {rule: every[rule] for rule in expected} | REPORT)
