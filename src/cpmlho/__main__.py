"""The verbs of the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cpmlho.arguments import parser

if TYPE_CHECKING:
    from cpmlho.study.protocol import Protocol

START = time.monotonic()


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


def fetch_data(arguments: argparse.Namespace) -> None:
    """Verb `data`."""
    from cpmlho.study.provision import provide

    provide(protocol_of(arguments, writes=True), arguments.dataset, say)


def run_one(arguments: argparse.Namespace) -> None:
    """Verb `run`."""
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


def make_tables(arguments: argparse.Namespace) -> None:
    """Verb `tables`."""
    from cpmlho.study.report.write import write_tables

    say(write_tables(_unpacked(protocol_of(arguments, writes=True))))


def make_figures(arguments: argparse.Namespace) -> None:
    """Verb `figures`."""
    from cpmlho.study.report.write import write_figures

    say(write_figures(_unpacked(protocol_of(arguments, writes=True))))


def make_report(arguments: argparse.Namespace) -> None:
    """Verb `report`."""
    from cpmlho.study.report.write import write_page

    say(write_page(_unpacked(protocol_of(arguments, writes=True))))


def log_summary(arguments: argparse.Namespace) -> None:
    """Verb `summary`; exit status 1 if MLflow lacks them."""
    from cpmlho.study.tracking import log_summary

    if not log_summary(protocol_of(arguments), Path.cwd(), say):
        sys.exit(1)


def track(arguments: argparse.Namespace) -> None:
    """Verb `track`; exit status 1 if MLflow lacks a run, or there is none."""
    from cpmlho.study.tracking import track

    if not track(_unpacked(protocol_of(arguments)), Path.cwd(), say):
        sys.exit(1)
    given = "".join(f" --config {file}" for file in arguments.config or ())
    say(f"MLflow's page on them: python -m cpmlho ui{given}")


def pack_runs(arguments: argparse.Namespace) -> None:
    """Verb `pack`."""
    from cpmlho.study.archive import pack

    pack(protocol_of(arguments, writes=True).results_dir, say)


def unpack_runs(arguments: argparse.Namespace) -> None:
    """Verb `unpack`."""
    from cpmlho.study.archive import unpack

    unpack(protocol_of(arguments, writes=True).results_dir, say)


def print_schema(arguments: argparse.Namespace) -> None:
    """Verb `schema`."""
    from cpmlho.study.results import schema

    print(schema(), end="")


def serve_page(arguments: argparse.Namespace) -> None:
    """Verb `ui`."""
    from cpmlho.study.tracking import serve

    serve(protocol_of(arguments), Path.cwd(), arguments.port, say)


def compare_runs(arguments: argparse.Namespace) -> None:
    """Verb `compare`; exit status 1 where a run differs, by more than the tolerance if there is one."""
    from cpmlho.study.compare import compare

    if not compare(arguments.ours, arguments.theirs, say, arguments.tolerance):
        sys.exit(1)


VERBS: dict[str, Callable[[argparse.Namespace], None]] = {
    "data": fetch_data,
    "run": run_one,
    "tables": make_tables,
    "figures": make_figures,
    "report": make_report,
    "summary": log_summary,
    "track": track,
    "pack": pack_runs,
    "unpack": unpack_runs,
    "ui": serve_page,
    "schema": print_schema,
    "compare": compare_runs,
}


def main() -> None:
    """Run one verb; an error that a user can correct is one line and exit status 2."""
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
        VERBS[arguments.verb](arguments)
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
