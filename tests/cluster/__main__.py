"""`make test-cluster`: small runs through a real Slurm and a real tracking server, attacked on the way.

Slurm and PostgreSQL come from Debian's packages, listen on loopback alone, and are ended again. Whatever happens to the
jobs, the runs must end with the same bytes as on this machine alone, and the server with every metric of their files.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from tests.cluster import server, slurm
from tests.cluster.attacks import Attacks
from tests.cluster.server import TrackingServer, postgres
from tests.cluster.services import install, wait_for
from tests.cluster.tracked import begun, lost, repair

ROOT = Path(__file__).parents[2]
DEADLINE = 1200.0  # seconds, for a workflow or the writers to end
CPUS = 3  # that Slurm believes in: jobs wait a good part of their time
RUN = {  # nine runs: each attack wants runs that none has hit before
    "datasets": ["mnist"],
    "variants": [*(f"cpmlho_dropout0_{rate}" for rate in (0.1, 0.2, 0.5, 0.8)), "cpmlho_values"],
    "seeds": [0],
}
SNAKEMAKE = [sys.executable, "-m", "snakemake", f"--snakefile={ROOT / 'Snakefile'}"]
# Seconds between the looks at the queue; the account that no accounting knows; a file system that hides nothing.
PROFILE = [
    f"--profile={ROOT / 'profiles/slurm'}",
    "--slurm-no-account",
    "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=3",
    "--latency-wait=5",
]


class Report:
    """Lines for the table at the end; time is counted from one to the next."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, float, str]] = []
        self._since = time.monotonic()

    def add(self, what: str, outcome: str) -> None:
        """A part is done."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        self._rows.append((what, seconds, outcome))
        print(f"{what}: {outcome} ({seconds:.0f} s)", flush=True)

    def __str__(self) -> str:
        lines = [f"| {what} | {seconds:.0f} | {outcome} |" for what, seconds, outcome in self._rows]
        return "\n".join(["| part | seconds | outcome |", "| --- | --- | --- |", *lines])


def place(folder: Path, name: str) -> Path:
    """A working directory with a protocol of its own, `overlay.yaml`."""
    here = folder / name
    here.mkdir()
    data = {"dir": str(folder / "data"), "folder": str(ROOT / "tests/data")}
    overlay = {"results_dir": "results", "data": data, "run": RUN}
    (here / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return here


def workflow(here: Path, options: Sequence[str], uri: str | None) -> subprocess.Popen[bytes]:
    """The runs, tables, figures and report in a folder; what is said goes to `snakemake.log` there."""
    overlays = f"overlay=[{ROOT / 'tests/smoke.yaml'},{here / 'overlay.yaml'}]"
    command = [*SNAKEMAKE, *options, "all", "--config", overlays]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    environment.pop("MLFLOW_TRACKING_URI", None)
    if uri:
        environment["MLFLOW_TRACKING_URI"] = uri
    with (here / "snakemake.log").open("ab") as log:
        return subprocess.Popen(command, cwd=here, env=environment, stdout=log, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes], here: Path) -> None:
    """Wait for a workflow.

    Raises:
        AssertionError: it failed; the end of its log is in the message.
        subprocess.TimeoutExpired: it does not come to an end.
    """
    if process.wait(DEADLINE) != 0:
        raise AssertionError("\n".join((here / "snakemake.log").read_text().splitlines()[-60:]))


def eight_writers(folder: Path, tracking: TrackingServer, uri: str) -> str:
    """Eight published runs logged at once, the server killed and started again meanwhile; left running.

    Raises:
        AssertionError: a metric is lost for good.
    """
    results = folder / "writers"
    with tarfile.open(ROOT / "results/published/runs.tar.xz") as archive:
        wanted = tuple(f"runs/mnist/cpmlho/seed{seed}/" for seed in range(2, 10))  # the workflow's own is 0
        members = [member for member in archive if member.name.startswith(wanted)]
        archive.extractall(results, members, filter="data")
    command = [sys.executable, "-m", "tests.cluster.tracked", uri, str(results), "0.4"]
    with (folder / "writers.log").open("wb") as log:
        writers = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    wait_for("the eight writers", lambda: begun(tracking.uri) == 8)
    tracking.kill()
    tracking.start()
    writers.wait(DEADLINE)
    return f"{all_found(tracking.uri, results)}; server killed once"


def all_found(uri: str, results: Path) -> str:
    """What the server has of the metrics in the files of the runs.

    Raises:
        AssertionError: a metric is lost for good.
    """
    total, late = lost(uri, results)
    repair(uri, results)
    _, missing = lost(uri, results)
    assert missing == 0, f"{missing} of {total} metrics in {results} are lost"
    return f"{total} metrics in the files, {total - late} found at once, all of them after `track`"


def attacked(folder: Path, uri: str) -> str:
    """The workflow through Slurm, attacked; also the command that waits for it is killed, and given again."""
    here = place(folder, "slurm")
    attacks = Attacks(here)
    first = workflow(here, PROFILE, uri)
    try:
        attacks.fail_node()
        attacks.freeze()
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
    assert slurm.ended("TIMEOUT") >= 1, "the stopped job has not run into its time limit"
    assert slurm.ended("CANCELLED") >= 1, "no job was cancelled"
    return (
        ", ".join(f"{count} {what}" for what, count in Counter(attacks.log).items()) + ", 1 snakemake killed; all done"
    )


def same_bytes(ours: Path, theirs: Path) -> str:
    """What `compare` says of two folders with the same runs.

    Raises:
        AssertionError: a run differs, or lies in one alone.
    """
    command = [sys.executable, "-m", "cpmlho", "compare", str(ours), str(theirs)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    said = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 0, run.stderr
    assert said.endswith(" 0 runs in one alone"), said
    return said


def betrayed(folder: Path, words: Sequence[str]) -> list[Path]:
    """The files that hold one of the words: logs, results, pages, metadata, artifacts."""
    kept = [path for path in folder.rglob("*") if path.is_file() and not {"pg", "slurmd"} & set(path.parts)]
    return [path for path in kept if path.name != "pgpass" and any(w.encode() in path.read_bytes() for w in words)]


def main() -> None:
    """Everything, in four to five minutes on two cores."""
    if os.geteuid() != 0:
        print("make test-cluster: skipped, as only root can install Slurm and PostgreSQL and run them as their users")
        return
    if slurm.CONFIGURATION.exists() and not slurm.made_here():
        print(f"make test-cluster: skipped, as this machine has a Slurm of its own, {slurm.CONFIGURATION}")
        return
    install(slurm.PROGRAMS | server.PROGRAMS)
    with TemporaryDirectory(prefix="cpmlho-cluster-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's user passes through
        report = Report()
        run_all(folder, report)
    print(f"\n{report}")


def run_all(folder: Path, report: Report) -> None:
    """The parts, one after the other."""
    words = [secrets.token_hex(12) for _ in range(2)]
    alone = place(folder, "alone")
    reference = workflow(alone, ["--cores=2"], None)
    with postgres(folder / "pg", words[0]) as database, TrackingServer(folder, database) as tracking:
        uri = tracking.uri.replace("//", f"//team:{words[1]}@")
        finish(reference, alone)
        report.add("the runs on this machine alone, and a server set up", "done")
        report.add("eight writers", eight_writers(folder, tracking, uri))
        with slurm.slurm(folder / "slurmd", CPUS):
            report.add("the same through Slurm", attacked(folder, uri))
            report.add("against this machine alone", same_bytes(folder / "slurm/results", alone / "results"))
            report.add("its metrics", all_found(tracking.uri, folder / "slurm/results"))
    leaks = betrayed(folder, words)
    assert not leaks, f"a password lies in {', '.join(map(str, leaks))}"
    report.add("passwords", "in no log, result, page, artifact or metadata")


if __name__ == "__main__":
    main()
