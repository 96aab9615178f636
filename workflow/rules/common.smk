# What the rules share. The workflow is read before every command, so nothing here imports torch, pandas or mlflow.
import math
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import yaml

from cpmlho.study.protocol import ConfigError, Protocol, RunKey, RunSpec, load
from cpmlho.study.harness.provenance import code_digest
from cpmlho.study.settings import Tracking
from cpmlho.study.results import HISTORY, RESULT, data_file, held, run_dir

PY = sys.executable  # plain `python` would be the PATH's, whichever snakemake was called


def relative(path: Path | str) -> Path:
    """The path from the working directory, so that a moved checkout has the same inputs as before."""
    return Path(os.path.relpath(path))


def read_protocol() -> Protocol:
    """The protocol: config.yaml, then overlays, then --config; a mistake ends the command with one line.

    The files are read here and not taken from Snakemake's `config`: an error then names its file and line, a key
    given twice is one, and the numbers in --config are numbers. An overlay is given with `--config overlay=FILE`;
    with `--configfile FILE` too, but Snakemake reads that before this, and a file that it cannot read ends in its words.
    """
    given = workflow.config_settings
    try:
        overrides = {}
        for name, _, value in (entry.partition("=") for entry in given.config_args or []):
            try:
                overrides[name] = yaml.safe_load(value)
            except yaml.YAMLError:
                raise ConfigError(f"--config {name}={value}: not valid YAML") from None
        overlays = overrides.pop("overlay", [])
        overlays = [overlays] if isinstance(overlays, str) else overlays
        if not (isinstance(overlays, list) and all(isinstance(file, str) for file in overlays)):
            raise ConfigError("--config overlay: must be a file, or a list of files such as [a.yaml, b.yaml]")
        files = [Path(workflow.basedir, "config.yaml"), *given.configfiles, *overlays]
        return load([relative(file) for file in files], overrides)
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)  # Snakemake lets this pass, where an exception would be printed with its traceback


def find_gpus() -> list[str]:
    """The GPUs that the runs are shared out over, as CUDA_VISIBLE_DEVICES names them; none: the runs use the CPU."""
    if protocol.device == "cpu":
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.replace(" ", "").split(",") if name not in ("", "-1")]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        listing = ""
    found = [line for line in listing.splitlines() if line.startswith("GPU ")]
    unseen = ["0"] if protocol.device == "cuda" else []  # asked for by name: let the run itself say that it is missing
    return [str(index) for index, _ in enumerate(found)] or unseen


protocol = read_protocol()
PROTOCOL = protocol.model_dump_json()
KEYS = list(protocol.keys())
GPUS = find_gpus()
RESULTS = str(Path(protocol.results_dir))
HELD = ExitStack()  # until the process ends
RUN = run_dir(RESULTS, RunKey("{dataset}", "{method}", "{seed}"))
SOURCE = relative(Path(workflow.basedir, "src", "cpmlho"))

# Torch on one thread: more threads give other bits, and `--cores` above the machine's cores then costs little.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
# Freed memory stays the process's: to fault the pages of each step's tensors in anew takes 5 % of a CNN's training.
os.environ.update(MALLOC_MMAP_THRESHOLD_=str(2**25), MALLOC_TRIM_THRESHOLD_=str(2**30))
if protocol.tracking.uri:
    os.environ["MLFLOW_TRACKING_URI"] = protocol.tracking.uri


def hold_results() -> None:
    """Keep other workflows away from these results for as long as this process lives, however it ends."""

    def busy():
        print(
            f"Error: {RESULTS}: another snakemake is at work on it; wait, or set another results_dir", file=sys.stderr
        )
        os._exit(2)  # an exception would be printed with its traceback

    HELD.enter_context(held(Path(RESULTS), busy))


def stop(*_) -> None:
    """SIGTERM does what Ctrl-C does in a terminal; Snakemake's own handler would first let the jobs train to their end.

    The jobs get SIGTERM too, as those that a script started in the background ignore SIGINT.
    """
    for child in psutil.Process().children(recursive=True):
        child.send_signal(signal.SIGTERM)
    raise KeyboardInterrupt


wildcard_constraints:
    dataset="|".join(map(re.escape, protocol.datasets)),
    method="|".join(map(re.escape, [*type(protocol.methods).model_fields, *protocol.variants])),
    seed="0|[1-9][0-9]*",


def key_of(wildcards) -> RunKey:
    """The run that the wildcards name."""
    return RunKey(wildcards.dataset, wildcards.method, int(wildcards.seed))


def spec_of(wildcards) -> RunSpec:
    """Everything that decides the run's numbers."""
    return protocol.resolve(key_of(wildcards))


def values_of(wildcards) -> list[str]:
    """The result that the run takes its hyperparameter values from, if it takes any."""
    method = getattr(spec_of(wildcards).settings, "values_of", None)
    key = key_of(wildcards)._replace(method=method)
    return [str(run_dir(RESULTS, key) / RESULT)] if method else []


def gpu_of(wildcards) -> str:
    """The run's GPU: the runs of the protocol take turns in their order, so that seeds lie on different GPUs."""
    key = key_of(wildcards)
    turn = KEYS.index(key) if key in KEYS else key.seed
    return GPUS[turn % len(GPUS)] if GPUS else ""


def threads_of(wildcards) -> int:
    """How many trials of random search go side by side: as many as leave the fewest idle in the last round."""
    spec = spec_of(wildcards)
    if GPUS or spec.settings.algorithm != "random_search":
        return 1
    rounds = math.ceil(spec.settings.trials / max(1, workflow.cores or 1))
    return math.ceil(spec.settings.trials / rounds)


def length_of(wildcards) -> int:
    """A run's length, roughly: the longest start first, or one would be left alone at the end."""
    spec = spec_of(wildcards)
    return getattr(spec.settings, "trials", 2) * spec.data.epochs * {"mlp": 1, "cnn": 3}[spec.data.network.kind]
