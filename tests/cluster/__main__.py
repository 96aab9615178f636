"""`make test-cluster`: small runs on a real Slurm and a real tracking server, with injected faults.

Slurm and PostgreSQL come from Debian's packages, listen only on loopback, and are stopped at the end. Despite the
faults, the results must be bit-identical to runs without Slurm, and the server must have every metric of the files.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import yaml
from mlflow import MlflowClient
from tests.cluster import slurm
from tests.cluster.services import TrackingServer, install, postgres, wait_for

from cpmlho.study.results import RESULT, read_result, read_rows
from cpmlho.study.tracking import TrackerProcess, log_run
from cpmlho.study.tracking.entry import Store, curves

ROOT = Path(__file__).parents[2]
DEADLINE = 1200.0  # seconds, for a workflow or a writer to end
CPUS = 3  # that Slurm assumes; more than there may be, because jobs often wait
RUN = {  # nine runs: each fault needs a run without an earlier fault
    "datasets": ["mnist"],
    "variants": [*(f"cpmlho_dropout0_{rate}" for rate in (0.1, 0.2, 0.5, 0.8)), "cpmlho_values"],
    "seeds": [0],
}
# No accounting; few seconds between looks at the queue; a local file system, where files appear at once.
PROFILE = [
    f"--profile={ROOT / 'profiles/slurm'}",
    "--slurm-no-account",
    "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=3",
    "--latency-wait=5",
]


def workflow(here: Path, options: Sequence[str], uri: str | None) -> subprocess.Popen[bytes]:
    """Start the workflow in a folder; its output goes to `snakemake.log` there."""
    here.mkdir(exist_ok=True)
    data = {"dir": str(here.parent / "data"), "folder": str(ROOT / "tests/data")}
    (here / "overlay.yaml").write_text(yaml.safe_dump({"results_dir": "results", "data": data, "run": RUN}))
    overlays = f"overlay=[{ROOT / 'tests/smoke.yaml'},{here / 'overlay.yaml'}]"
    command = [sys.executable, "-m", "snakemake", f"--snakefile={ROOT / 'Snakefile'}", *options]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    environment.pop("MLFLOW_TRACKING_URI", None)
    environment |= {"MLFLOW_TRACKING_URI": uri} if uri else {}
    with (here / "snakemake.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "all", "--config", overlays], cwd=here, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def finish(process: subprocess.Popen[bytes], here: Path) -> None:
    """Wait for a workflow, which must succeed."""
    assert process.wait(DEADLINE) == 0, "\n".join((here / "snakemake.log").read_text().splitlines()[-60:])


def write(uri: str, results: Path, folder: Path) -> None:
    """Log a finished run a few rows at a time, as if it were training."""
    result = read_result(folder / RESULT)
    tables = {path.name: read_rows(path) for path in folder.glob("*.csv")}
    tracker = TrackerProcess(uri, results, print)
    tracker.started(result.spec, {})
    for start in range(0, max(map(len, tables.values())), 8):
        tracker.evaluated({name: rows[start : start + 8] for name, rows in tables.items()}, None)
        time.sleep(0.4)
    tracker.finished(result, folder)


def lost(uri: str, results: Path) -> tuple[int, int]:
    """Return how many metrics the files of the runs have, and how many of these the server lacks."""
    client, total, missing = MlflowClient(uri), 0, 0
    everywhere = [each.experiment_id for each in client.search_experiments() if f"{results}/" in each.name]
    for path in results.glob(f"runs/*/*/*/{RESULT}"):
        key, tables = read_result(path).key, {each.name: read_rows(each) for each in path.parent.glob("*.csv")}
        written = {(name, step, float(value)) for (name, step), value in curves(tables).items()}
        runs = client.search_runs(everywhere, f"tags.`workflow.job_key` = '{key}' and attributes.status = 'FINISHED'")
        assert len(runs) < 2, f"{key} has {len(runs)} entries"
        found = {
            (name, point.step, point.value)
            for run in runs
            for name in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, name)
        }
        total, missing = total + len(written), missing + len(written - found)
    return total, missing


def all_found(uri: str, results: Path) -> str:
    """Check that the server has every metric of the files after `track`; return how many it had before."""
    total, late = lost(uri, results)
    store = Store(uri, results)
    for path in results.glob(f"runs/*/*/*/{RESULT}"):
        key = read_result(path).key
        log_run(store, path.parent, store.of(key.dataset, str(key)))
    assert lost(uri, results) == (total, 0)
    return f"{total} metrics in the files, {total - late} found at once, all of them after `track`"


def eight_writers(folder: Path, server: TrackingServer, uri: str) -> str:
    """Log eight published runs at once; meanwhile kill the server and restart it."""
    results = folder / "writers"
    with tarfile.open(ROOT / "results/published/runs.tar.xz") as archive:
        wanted = tuple(f"runs/mnist/cpmlho/seed{seed}/" for seed in range(2, 10))
        archive.extractall(results, [each for each in archive if each.name.startswith(wanted)], filter="data")
    folders = [path.parent for path in results.glob(f"runs/*/*/*/{RESULT}")]
    writers = [Thread(target=write, args=(uri, results, each)) for each in folders]
    for writer in writers:
        writer.start()
    store = Store(uri, results)
    wait_for("the eight writers", lambda: len(store.entries("mnist")) == len(folders) == 8)
    server.kill()
    server.__enter__()
    for writer in writers:
        writer.join(DEADLINE)
    return f"{all_found(server.uri, results)}; server killed once"


def attacked(here: Path, uri: str) -> str:
    """Run the workflow on Slurm with faults; Snakemake itself is killed and restarted."""
    first = workflow(here, PROFILE, uri)
    attacks = slurm.Attacks(here)
    try:
        attacks.fail_node()
        attacks.time_out()
        attacks.kill()
    finally:
        first.kill()
        first.wait()
    second = workflow(here, PROFILE, uri)
    try:
        attacks.kill()
        attacks.cancel()
        finish(second, here)
    finally:
        second.kill()
    assert slurm.ended("TIMEOUT") >= 1, "the stopped job did not reach its time limit"
    assert slurm.ended("CANCELLED") >= 1, "no job was cancelled"
    return "node down, a time limit, two kills, a cancelled job, Snakemake killed: all runs are done"


def same_bytes(ours: Path, theirs: Path) -> str:
    """Check that two folders have the same runs, bit-identical."""
    names = [{path.relative_to(folder) for path in folder.glob(f"runs/*/*/*/{RESULT}")} for folder in (ours, theirs)]
    assert names[0] == names[1]
    command = [sys.executable, "-m", "cpmlho", "compare", str(ours), str(theirs)]
    subprocess.run(command, check=True, cwd=ROOT)
    return f"{len(names[0])} runs, bit-identical"


def run_all(folder: Path) -> None:
    """Run all parts one after the other; this takes four to five minutes on two quiet cores."""

    def done(what: str, outcome: str) -> None:
        print(f"{what}: {outcome} ({time.monotonic() - began:.0f} s after the start)", flush=True)

    began, words = time.monotonic(), [secrets.token_hex(12) for _ in range(2)]
    reference = workflow(folder / "alone", ["--cores=2"], None)
    with postgres(folder / "pg", words[0]) as database, TrackingServer(folder, database) as server:
        uri = server.uri.replace("//", f"//team:{words[1]}@")
        finish(reference, folder / "alone")
        done("The runs without Slurm", "done")
        done("Eight writers", eight_writers(folder, server, uri))
        with slurm.slurm(folder / "slurmd", CPUS):
            done("The same runs on Slurm", attacked(folder / "slurm", uri))
        done("Compared with the runs without Slurm", same_bytes(folder / "slurm/results", folder / "alone/results"))
        done("Their metrics", all_found(server.uri, folder / "slurm/results"))
    kept = [path for path in folder.rglob("*") if path.is_file() and not {"pg", "slurmd"} & set(path.parts)]
    leaks = [path for path in kept if path.name != "pgpass" and any(w.encode() in path.read_bytes() for w in words)]
    assert not leaks, f"a password is in {', '.join(map(str, leaks))}"
    done("Passwords", "in no log, result, page, artifact or metadata")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("make test-cluster: needs root, to install Slurm and PostgreSQL and start them as their users")
    if slurm.CONFIGURATION.exists() and not slurm.CONFIGURATION.read_text().startswith(slurm.MARK):
        sys.exit(f"make test-cluster: this machine already has a Slurm, {slurm.CONFIGURATION}; use another machine")
    install(slurm.PROGRAMS | {"pg_createcluster": "postgresql"})
    with TemporaryDirectory(prefix="cpmlho-cluster-") as name:
        Path(name).chmod(0o755)  # so that PostgreSQL's user can enter
        run_all(Path(name))
