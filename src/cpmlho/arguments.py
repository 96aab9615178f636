"""The command line of the replication: each verb does one step of the workflow by hand."""

from __future__ import annotations

import argparse
import math
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

VERBS = {
    "data": "download a dataset and verify its checksums",
    "run": "train one method on one dataset with one seed, and write its result files",
    "tables": "make the tables from the result files of the runs",
    "figures": "make the figures from the result files of the runs",
    "report": "make the page report.html from the tables, the figures and the runs",
    "summary": "put the tables, the figures and the page into MLflow, next to the runs",
    "track": "put runs into MLflow that are missing there, from their result files",
    "ui": "open MLflow's page on the runs",
    "pack": "pack all finished runs into one compressed file, runs.tar.xz, to publish them",
    "unpack": "unpack the runs of runs.tar.xz; runs that are already there stay as they are",
    "compare": "compare the runs in two folders, and say which of them have the same numbers",
    "schema": "print the JSON Schema of result.json: its fields and their types",
}
WITHOUT_CONFIG = ("schema", "compare")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors instead of printing them."""

    def error(self, message: str) -> NoReturn:
        """Raise `argparse.ArgumentError`."""
        raise argparse.ArgumentError(None, message)


def parser() -> Parser:
    """Return the parser of all verbs; its `parse_args` raises `argparse.ArgumentError` for a wrong command line."""
    top = Parser(prog="cpmlho", description=__doc__, epilog="cpmlho VERB --help explains the arguments of a verb.")
    top.add_argument("--version", action="version", version=f"cpmlho {version('cpmlho')}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    subs = {name: verbs.add_parser(name, help=text, description=text) for name, text in VERBS.items()}
    subs["data"].add_argument("dataset", help="a dataset of the configuration, such as mnist")
    run = subs["run"]
    run.add_argument("dataset", help="a dataset of the configuration, such as mnist")
    run.add_argument("method", help="a method or a variant, such as cpmlho")
    run.add_argument("seed", type=seed, help="a whole number from 0")
    run.add_argument("--results-dir", type=path, metavar="FOLDER", help="write here instead of the configured folder")
    threads_help = "how many trials of random_search to train at the same time; default: 1"
    run.add_argument("--threads", type=threads, default=1, metavar="N", help=threads_help)
    for name, sub in subs.items():
        if name not in WITHOUT_CONFIG:
            config_help = "configuration file, default config.yaml; may be repeated: later files change earlier ones"
            sub.add_argument("--config", action="append", type=path, metavar="FILE", help=config_help)
    subs["ui"].add_argument("--port", type=port, help="of the page; default: $MLFLOW_PORT, or the first free from 5000")
    compare = subs["compare"]
    compare.add_argument("ours", type=path, help="a folder with runs, such as results/published/runs")
    compare.add_argument("theirs", type=path, help="a folder with the same runs, made elsewhere")
    tolerance_help = (
        "call final metrics equal if they differ by at most this many standard deviations over the seeds; default: 0"
    )
    compare.add_argument("--tolerance", type=tolerance, metavar="SD", help=tolerance_help)
    return top


def threads(text: str) -> int:
    """Return a number of threads."""
    return _whole(text, 1, 2**15)


def port(text: str) -> int:
    """Return a port."""
    return _whole(text, 1, 2**16 - 1)


def tolerance(text: str) -> float:
    """Return a tolerance in standard deviations."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number from 0, got {text!r}")
    return value


def seed(text: str) -> int:
    """Return a seed, in the range that the configuration allows."""
    return _whole(text, 0, 2**31 - 1)


def _whole(text: str, least: int, most: int) -> int:
    if not (re.fullmatch("0|[1-9][0-9]{0,9}", text) and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {text!r}")
    return int(text)


def path(text: str) -> Path:
    """Return a path with `~` expanded, which the shell leaves in `--config=~/FILE`."""
    return Path(os.path.expanduser(text))
