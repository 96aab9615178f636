"""What planning, tables, figures, page and tracking cost as the runs grow: `python -m benchmarks.scale [N ...]`.

The runs are the published ones of the five methods, copied under other seeds. Each command is measured as a whole, as a
user waits for it; CPU seconds are the figure to compare by where the machine does other things as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from benchmarks import Row
from benchmarks.__main__ import show
from cpmlho.study.archive import unpack
from cpmlho.study.protocol import Protocol, RunKey, load
from cpmlho.study.results import RESULT, run_dir

SIZES = (100, 1_000, 10_000)
TRACKED = 100  # runs at most that are logged: each takes as long as the one before
PUBLISHED = Path("docs/first_edition")
SEEDS = 10  # that the published runs of each method have
FILES = [Path("config.yaml"), Path("workflow/first_edition.yaml")]
# A small process of its own: what a child is said to have taken begins with what its parent had.
LAUNCHER = """import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(code)"""


def grown(folder: Path, n: int) -> tuple[Protocol, list[Path]]:
    """A protocol of `n` runs and its files."""
    pairs = n // (2 * 5)  # datasets and methods
    overlay = {"results_dir": str(folder / "results"), "run": {"variants": [], "seeds": list(range(pairs))}}
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay))
    files = [*FILES, path]
    return load(files), files


def copy_runs(protocol: Protocol) -> None:
    """Make the results of the protocol from the published ones; tables along a run are links to those."""
    unpack(str(PUBLISHED), print)
    for key in protocol.keys():  # noqa: SIM118  (no mapping)
        source = run_dir(PUBLISHED, key._replace(seed=key.seed % SEEDS))
        target = run_dir(protocol.results_dir, key)
        target.mkdir(parents=True)
        for path in source.glob("*.csv"):
            os.link(path, target / path.name)
        content = json.loads((source / RESULT).read_text(encoding="utf-8"))
        content["spec"]["seed"] = key.seed
        (target / RESULT).write_text(json.dumps(content), encoding="utf-8")


def cost(command: list[str], environment: dict[str, str] | None = None) -> Row:
    """Wall and CPU seconds of a command with its children, and the most memory that one of its processes took, in MB.

    Raises:
        RuntimeError: it fails.
    """
    start = time.perf_counter()
    whole = [sys.executable, "-S", "-c", LAUNCHER, *command]
    run = subprocess.run(whole, check=False, capture_output=True, text=True, env=os.environ | (environment or {}))
    wall = time.perf_counter() - start
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}: {run.stderr[-2000:]}")
    cpu, kilobytes = map(float, run.stdout.split())
    return {"seconds": wall, "CPU seconds": cpu, "MB": kilobytes / 1024}


def measure(n: int) -> Iterator[Row]:
    """What each command costs with `n` runs."""
    with TemporaryDirectory(dir="results") as name:  # on the same file system, for the links
        folder = Path(name)
        protocol, files = grown(folder, n)
        overlays = ",".join(str(file) for file in files[1:])
        configuration = [f"--config={file}" for file in files]
        plan = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", "--config", f"overlay=[{overlays}]"]
        yield {"runs": n, "command": "plan", **cost(plan)}
        copy_runs(protocol)
        for verb in ("tables", "figures", "report"):
            yield {"runs": n, "command": verb, **cost([sys.executable, "-m", "cpmlho", verb, *configuration])}
        if n > TRACKED:
            return
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder.resolve()}/mlflow.db"}
        yield {"runs": n, "command": "track", **cost([sys.executable, "-m", "cpmlho", "track", *configuration], store)}
        key = RunKey("mnist", "cpmlho", 0)
        query = f"""from mlflow import MlflowClient; client = MlflowClient()
found = client.get_experiment_by_name({key.dataset!r})
assert client.search_runs([found.experiment_id], "tags.method = {key.method!r}", max_results=100)"""
        yield {"runs": n, "command": "find a method's runs in MLflow", **cost([sys.executable, "-c", query], store)}


def main() -> None:
    """Print the curve."""
    sizes = [int(text) for text in sys.argv[1:]] or SIZES
    show("Cost of what grows with the number of runs", (row for n in sizes for row in measure(n)))


if __name__ == "__main__":
    main()
