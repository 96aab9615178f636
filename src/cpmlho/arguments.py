"""Command line: one verb for each kind of rule, so that every step of the workflow can be done by hand."""

from __future__ import annotations

import argparse
import math
import os
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

VERBS = {
    "data": "fetch and verify a dataset",
    "run": "train one dataset, method and seed; writes its result files",
    "tables": "make Tables 1-3 and the evidence from the result files",
    "figures": "make Figures 1-4 from the result files",
    "report": "make the report from the result files and the figures",
    "summary": "log the tables, figures and report to MLflow",
    "track": "log to MLflow every finished run that it lacks, from the result files",
    "pack": "pack the finished runs into one archive beside the tables, as the published ones lie",
    "unpack": "unpack the runs of such an archive that are not there",
    "crate": "export the published run as a Workflow Run RO-Crate, for an archive",
    "ui": "serve MLflow's page on the runs, on this machine",
    "schema": "print the JSON Schema of result.json, as docs/result.schema.json holds it",
    "compare": "say which runs of two folders have the same numbers, to the last digit",
}
OF_NO_PROTOCOL = ("schema", "compare")


class Parser(argparse.ArgumentParser):
    """An argument parser that leaves it to its caller to say what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Raise `argparse.ArgumentError`."""
        raise argparse.ArgumentError(None, message)


def parser() -> Parser:
    """All verbs and their arguments.

    What it parses has its `verb`; `parse_args` raises `argparse.ArgumentError` where the command line is wrong.
    """
    top = Parser(prog="cpmlho", description=__doc__)
    top.add_argument("--version", action="version", version=f"cpmlho {version('cpmlho')}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    subs = {name: verbs.add_parser(name, help=text, description=text) for name, text in VERBS.items()}
    subs["data"].add_argument("dataset", help="name of the dataset in the configuration")
    _add_run(subs["run"])
    for name, sub in subs.items():
        if name not in OF_NO_PROTOCOL:
            sub.add_argument(
                "--config",
                action="append",
                type=path,
                metavar="FILE",
                help="configuration file, default config.yaml; each further one is merged over those before",
            )
    subs["ui"].add_argument("--port", type=port, help="of the page; default: $MLFLOW_PORT, or the first free from 5000")
    out = Path("results", "crate")
    subs["crate"].add_argument("--out", type=path, default=out, help=f"folder of the crate; default: {out}")
    _add_compared(subs["compare"])
    return top


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("dataset", help="name of the dataset")
    run.add_argument("method", help="name of the method or variant")
    run.add_argument("seed", type=seed, help="seed, a whole number from 0")
    run.add_argument("--results-dir", type=path, help="where the result goes; default: as configured")
    run.add_argument(
        "--threads", type=threads, default=1, help="trials of random search to train side by side; default: 1"
    )


def _add_compared(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("ours", type=path, help="folder with runs, such as results/published/runs")
    compare.add_argument("theirs", type=path, help="folder with the same runs made elsewhere")
    compare.add_argument(
        "--tolerance",
        type=tolerance,
        metavar="SD",
        help="largest difference of a final metric that is none, in standard deviations over the seeds; default: none",
    )


def threads(text: str) -> int:
    """A number of threads."""
    return _whole(text, 1, 2**15)


def port(text: str) -> int:
    """A port."""
    return _whole(text, 1, 2**16 - 1)


def tolerance(text: str) -> float:
    """A tolerance in standard deviations."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number from 0, got {text!r}")
    return value


def seed(text: str) -> int:
    """A seed, of the range that the configuration allows too."""
    return _whole(text, 0, 2**31 - 1)


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {text!r}")
    return int(text)


def path(text: str) -> Path:
    """A path, in which `~` is a home directory where the shell has not seen it, as in `--config=~/FILE`."""
    return Path(os.path.expanduser(text))
