"""The command line of the replication: each verb does one step of the workflow by hand."""

from __future__ import annotations

import argparse
import inspect
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from cpmlho.study.protocol import Protocol

Verb = Callable[[argparse.Namespace], bool | None]  # False: it found something wrong, and said so

START = time.monotonic()


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a function that reads a whole number between two bounds."""

    def read(text: str) -> int:
        if not (re.fullmatch("0|[1-9][0-9]{0,9}", text) and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return read


def tolerance(text: str) -> float:
    """Return a tolerance in standard deviations."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number from 0, got {text!r}")
    return value


def path(text: str) -> Path:
    """Return a path with `~` expanded, which the shell leaves in `--config=~/FILE`."""
    return Path(os.path.expanduser(text))


ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {  # help, and other arguments of argparse's `add_argument`
    "dataset": ("a dataset of the configuration, such as mnist", {}),
    "method": ("a method or a variant, such as cpmlho", {}),
    "seed": ("a whole number from 0", {"type": whole(0, 2**31 - 1)}),
    "--results-dir": ("write here instead of the configured folder", {"type": path, "metavar": "FOLDER"}),
    "--threads": (
        "how many trials of random_search to train at the same time; default: 1",
        {"type": whole(1, 2**15), "default": 1, "metavar": "N"},
    ),
    "--config": (
        "configuration file, default config.yaml; may be repeated: later files change earlier ones",
        {"action": "append", "type": path, "metavar": "FILE"},
    ),
    "--port": ("of the page; default: $MLFLOW_PORT, or the first free from 5000", {"type": whole(1, 2**16 - 1)}),
    "ours": ("a folder with runs, such as results/published/runs", {"type": path}),
    "theirs": ("a folder with the same runs, made elsewhere", {"type": path}),
    "--tolerance": (
        "call final metrics equal if they differ by at most this many standard deviations over the seeds; default: 0",
        {"type": tolerance, "metavar": "SD"},
    ),
}
VERBS: dict[str, Verb] = {}
TAKES: dict[str, tuple[str, ...]] = {}  # the arguments of each verb


def verb(*arguments: str) -> Callable[[Verb], Verb]:
    """Return a decorator that makes a function the verb of its name, with its docstring as help."""

    def decorate(act: Verb) -> Verb:
        VERBS[act.__name__], TAKES[act.__name__] = act, arguments
        return act

    return decorate


def protocol_of(arguments: argparse.Namespace, *, writes: bool = False) -> Protocol:
    """Return the configuration that the arguments name.

    Args:
        arguments: the command line.
        writes: whether the verb writes results, so that their folder is checked first.
    """
    from cpmlho.study.protocol import load

    protocol = load(arguments.config or [Path("config.yaml")])
    if getattr(arguments, "results_dir", None):
        protocol = protocol.model_copy(update={"results_dir": str(arguments.results_dir)})
    if writes:
        protocol.check_folders()
    return protocol


def say(line: str) -> None:
    """Write one line to the terminal and the log; a terminal that is gone is no reason to end."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@verb("dataset", "--config")
def data(arguments: argparse.Namespace) -> None:
    """Download a dataset and verify its checksums."""
    from cpmlho.study.provision import provide

    provide(protocol_of(arguments, writes=True), arguments.dataset, say)


@verb("dataset", "method", "seed", "--results-dir", "--threads", "--config")
def run(arguments: argparse.Namespace) -> None:
    """Train one method on one dataset with one seed, and write its result files."""
    from cpmlho.study.data import check_files
    from cpmlho.study.spec import RunKey

    protocol = protocol_of(arguments, writes=True)
    key = RunKey(arguments.dataset, arguments.method, arguments.seed)
    spec, results_dir = protocol.resolve(key), protocol.results_dir
    check_files(spec.data, spec.data_dir)

    from cpmlho.study.harness.progress import Progress
    from cpmlho.study.provision import as_run, provide
    from cpmlho.study.results import Observer, data_file, run_dir
    from cpmlho.study.tracking import TrackerProcess, tracking_uri

    if spec.data.reader and not data_file(results_dir, key.dataset).exists():
        provide(protocol, key.dataset, say)
    spec = as_run(spec, results_dir)
    folder = run_dir(results_dir, key)
    # The tracker's process starts while torch is imported here.
    observers: list[Observer] = [
        Progress(spec, say),
        TrackerProcess(tracking_uri(protocol.tracking.uri, Path.cwd()), Path(results_dir), say, protocol.plugins),
    ]
    try:
        from cpmlho.study.harness.network import Network
        from cpmlho.study.harness.run import execute

        observers.append(Network(folder, protocol.tracking.networks))
        execute(spec, folder, observers, say, START, arguments.threads)
    except BaseException as error:
        interrupted = isinstance(error, SystemExit)
        for observer in observers:
            observer.failed("interrupted" if interrupted else f"{type(error).__name__}: {error}")
        raise


def _unpacked(protocol: Protocol) -> Protocol:
    """Return the protocol if its runs are not only in their archive.

    Raises:
        ConfigError: they are.
    """
    from cpmlho.study.archive import ARCHIVE, RUNS
    from cpmlho.study.hints import command
    from cpmlho.study.results import RESULT
    from cpmlho.study.strict import ConfigError

    root = Path(protocol.results_dir)
    if (root / ARCHIVE).exists() and not any((root / RUNS).glob(f"*/*/*/{RESULT}")):
        raise ConfigError(f"{root / RUNS}: the runs are still packed in {ARCHIVE}; unpack them: {command('unpack')}")
    return protocol


@verb("--config")
def tables(arguments: argparse.Namespace) -> None:
    """Make the tables from the result files of the runs."""
    from cpmlho.study.report.write import write_tables

    say(write_tables(_unpacked(protocol_of(arguments, writes=True))))


@verb("--config")
def figures(arguments: argparse.Namespace) -> None:
    """Make the figures from the result files of the runs."""
    from cpmlho.study.report.write import write_figures

    say(write_figures(_unpacked(protocol_of(arguments, writes=True))))


@verb("--config")
def report(arguments: argparse.Namespace) -> None:
    """Make the page report.html from the tables, the figures and the runs."""
    from cpmlho.study.report.write import write_page

    say(write_page(_unpacked(protocol_of(arguments, writes=True))))


@verb("--config")
def summary(arguments: argparse.Namespace) -> bool:
    """Put the tables, the figures and the page into MLflow, next to the runs."""
    from cpmlho.study.tracking import log_summary

    return log_summary(protocol_of(arguments), Path.cwd(), say)


@verb("--config")
def track(arguments: argparse.Namespace) -> bool:
    """Put runs into MLflow that are missing there, from their result files."""
    from cpmlho.study.hints import command
    from cpmlho.study.tracking import track as put

    complete = put(_unpacked(protocol_of(arguments)), Path.cwd(), say)
    if complete:
        say(f"MLflow's page on them: {command('ui')}")
    return complete


@verb("--config", "--port")
def ui(arguments: argparse.Namespace) -> None:
    """Open MLflow's page on the runs."""
    from cpmlho.study.tracking import serve

    serve(protocol_of(arguments), Path.cwd(), arguments.port, say)


@verb("--config")
def pack(arguments: argparse.Namespace) -> None:
    """Pack all finished runs into one compressed file, runs.tar.xz, to publish them."""
    from cpmlho.study import archive

    archive.pack(protocol_of(arguments, writes=True).results_dir, say)


@verb("--config")
def unpack(arguments: argparse.Namespace) -> None:
    """Unpack the runs of runs.tar.xz; runs that are already there stay as they are."""
    from cpmlho.study import archive

    archive.unpack(protocol_of(arguments, writes=True).results_dir, say)


@verb("ours", "theirs", "--tolerance")
def compare(arguments: argparse.Namespace) -> bool:
    """Compare the runs in two folders, and say which of them have the same numbers."""
    from cpmlho.study.compare import compare as same

    return same(arguments.ours, arguments.theirs, say, arguments.tolerance)


@verb()
def schema(arguments: argparse.Namespace) -> None:
    """Print the JSON Schema of result.json: its fields and their types."""
    from cpmlho.study import results

    print(results.schema(), end="")


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
    for name, act in VERBS.items():
        text = inspect.getdoc(act)
        sub = verbs.add_parser(name, help=text, description=text)
        for argument in TAKES[name]:
            said, keywords = ARGUMENTS[argument]
            sub.add_argument(argument, help=said, **keywords)
    return top


def main() -> None:
    """Run one verb: exit status 1 if it finds something wrong, 2 after one line about an error of the user's."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a script
            signal.signal(number, _terminate)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, and a notebook exports a backend of its own
    try:
        os.getcwd()
    except OSError:
        sys.exit(_fail("the working directory is gone; change to one that is there"))
    try:
        _act(parser().parse_args())
    except argparse.ArgumentError as error:
        sys.exit(_fail(str(error)))
    except ModuleNotFoundError as error:
        if (error.name or "cpmlho").split(".")[0] == "cpmlho":
            raise
        sys.exit(_fail(f"{error.name} is not installed; in the repository's folder: pip install '.[study]'"))
    except ImportError as error:  # another Python, the library alone, or too little memory for torch
        sys.exit(_fail(f"{error}; run .venv/bin/python, which `make` sets up, with memory to load its packages"))
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(_fail(f"{error.filename or 'file'}: {error.strerror or error}"))


def _act(arguments: argparse.Namespace) -> None:
    from cpmlho.study.arrays import DataError, MissingDataError
    from cpmlho.study.hints import command, repeat_configs
    from cpmlho.study.results import ResultError
    from cpmlho.study.strict import ConfigError

    repeat_configs(getattr(arguments, "config", None) or [])
    try:
        if VERBS[arguments.verb](arguments) is False:
            sys.exit(1)
    except MissingDataError as error:
        sys.exit(_fail(f"{error}; fetch the data: {command('data', arguments.dataset)}"))
    except (ConfigError, DataError, ResultError) as error:
        sys.exit(_fail(str(error)))


def _fail(message: str) -> int:
    say(f"cpmlho: error: {' '.join(message.splitlines())}")
    return 2


def _terminate(number: int, _frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a terminal and the workflow may both send one
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
