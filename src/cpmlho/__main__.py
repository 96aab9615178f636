"""What each verb of the command line does, and how it ends."""

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

START = time.time()


def protocol_of(arguments: argparse.Namespace) -> Protocol:
    """The configuration that the arguments name."""
    from cpmlho.study.protocol import load

    return load(arguments.config or [Path("config.yaml")])


def say(line: str) -> None:
    """One line to the terminal and the log; that nobody can read it any more is no reason to end."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def fetch_data(arguments: argparse.Namespace) -> None:
    """Verb `data`."""
    from cpmlho.study.provision import provide

    provide(protocol_of(arguments), arguments.dataset, say)


def run_one(arguments: argparse.Namespace) -> None:
    """Verb `run`."""
    from cpmlho.study.spec import RunKey

    protocol = protocol_of(arguments)
    key = RunKey(arguments.dataset, arguments.method, arguments.seed)
    spec, results_dir = protocol.resolve(key), arguments.results_dir or protocol.results_dir

    from cpmlho.study.harness.progress import Progress
    from cpmlho.study.provision import as_run, provide
    from cpmlho.study.results import Observer, data_file, run_dir
    from cpmlho.study.tracking import TrackerProcess, tracking_uri

    if spec.data.reader and not data_file(results_dir, key.dataset).exists():
        provide(protocol.model_copy(update={"results_dir": str(results_dir)}), key.dataset, say)
    spec = as_run(spec, results_dir)
    folder = run_dir(results_dir, key)
    # The tracker's process starts while torch is imported here.
    observers: list[Observer] = [
        Progress(spec, say),
        TrackerProcess(tracking_uri(protocol.tracking.uri, Path.cwd()), say, protocol.plugins),
    ]
    try:
        from cpmlho.study.harness.network import Network
        from cpmlho.study.harness.run import execute

        observers.append(Network(folder, protocol.tracking.networks))
        execute(spec, folder, observers, say, START, arguments.threads)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        for observer in observers:
            observer.failed("interrupted" if interrupted else f"{type(error).__name__}: {error}")
        raise


def make_tables(arguments: argparse.Namespace) -> None:
    """Verb `tables`."""
    from cpmlho.study.report.write import write_tables

    say(write_tables(protocol_of(arguments)))


def make_figures(arguments: argparse.Namespace) -> None:
    """Verb `figures`."""
    from cpmlho.study.report.write import write_figures

    say(write_figures(protocol_of(arguments)))


def make_report(arguments: argparse.Namespace) -> None:
    """Verb `report`."""
    from cpmlho.study.report.write import write_page

    say(write_page(protocol_of(arguments)))


def log_summary(arguments: argparse.Namespace) -> None:
    """Verb `summary`; exit status 1 where MLflow has not got them."""
    from cpmlho.study.tracking import log_summary

    if not log_summary(protocol_of(arguments), Path.cwd(), say):
        sys.exit(1)


def track(arguments: argparse.Namespace) -> None:
    """Verb `track`; exit status 1 where MLflow lacks a run, or there is none."""
    from cpmlho.study.tracking import track

    if not track(protocol_of(arguments), Path.cwd(), say):
        sys.exit(1)


def pack_runs(arguments: argparse.Namespace) -> None:
    """Verb `pack`."""
    from cpmlho.study.archive import pack

    pack(protocol_of(arguments).results_dir, say)


def unpack_runs(arguments: argparse.Namespace) -> None:
    """Verb `unpack`."""
    from cpmlho.study.archive import unpack

    unpack(protocol_of(arguments).results_dir, say)


def write_crate(arguments: argparse.Namespace) -> None:
    """Verb `crate`."""
    from cpmlho.study.crate import write_crate

    write_crate(protocol_of(arguments), arguments.config or [Path("config.yaml")], arguments.out, say)


def print_schema(arguments: argparse.Namespace) -> None:
    """Verb `schema`."""
    from cpmlho.study.results import schema

    print(schema(), end="")


def serve_page(arguments: argparse.Namespace) -> None:
    """Verb `ui`: name the page's address, and serve it unless a server does."""
    from cpmlho.study.strict import ConfigError
    from cpmlho.study.tracking import tracking_uri, ui_link
    from cpmlho.study.tracking.place import command, database

    uri = tracking_uri(protocol_of(arguments).tracking.uri, Path.cwd())
    store = database(uri)
    if store and not store.exists():
        raise ConfigError(f"{store}: there are no runs in MLflow yet; `make all` makes them, `make quick` small ones")
    say(f"MLflow: {ui_link(uri)}")
    if not uri.startswith(("http:", "https:")):
        say("Ctrl-C ends it.")
        os.environ["MLFLOW_BACKEND_STORE_URI"] = uri  # and not an argument, as it may hold a password
        os.execv(command("mlflow"), ["mlflow", "ui"])


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
    "crate": write_crate,
    "ui": serve_page,
    "schema": print_schema,
    "compare": compare_runs,
}


def main() -> None:
    """Run one verb; an error that a user can mend is one line and exit status 2."""
    signal.signal(signal.SIGTERM, _terminate)
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
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted"))
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(_fail(f"{error.filename or 'file'}: {error.strerror or error}"))


def _act(arguments: argparse.Namespace) -> None:
    from cpmlho.study.arrays import DataError
    from cpmlho.study.results import ResultError
    from cpmlho.study.strict import ConfigError

    try:
        VERBS[arguments.verb](arguments)
    except (ConfigError, DataError, ResultError) as error:
        sys.exit(_fail(str(error)))


def _fail(message: str) -> int:
    say(f"cpmlho: error: {' '.join(message.splitlines())}")
    return 2


def _terminate(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
