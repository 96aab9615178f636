"""One run in MLflow: the observer that logs it while it goes, or anew from its files."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from cpmlho.study.harness.provenance import git_commit
from cpmlho.study.results import HYPERPARAMETERS, TRIALS, RunResult, read_rows
from cpmlho.study.spec import RunKey, RunSpec
from cpmlho.study.tracking import entry
from cpmlho.study.tracking.entry import Tables, Times
from cpmlho.study.tracking.place import one_line, shown
from cpmlho.study.tracking.store import NOTE, Store

SUMMARY = "summary"
SPEC = "spec.json"

P = ParamSpec("P")
T = TypeVar("T")


def _never_fails(
    method: Callable[Concatenate[Tracker, P], T],
) -> Callable[Concatenate[Tracker, P], T | None]:
    """A method after whose first failure the tracker says so in one line and does nothing more."""

    @functools.wraps(method)
    def guarded(self: Tracker, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        if self.broken:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            reason = one_line(error, self.uri)
            self._say(f"MLflow at {shown(self.uri)} fails, tracking stops here, results are not affected: {reason}")
            self.broken = True
            self._let_go("FAILED", {"status": "not tracked", "reason": reason})
            return None
        except BaseException:  # Ctrl-C or SIGTERM
            self.broken = True
            self._let_go("KILLED", {"status": "killed"})
            raise

    return guarded


class Tracker:
    """Logs runs to MLflow, one after another. A store that fails silences it and nothing else.

    Args:
        uri: the tracking store.
        say: takes one line of text.
    """

    def __init__(self, uri: str, say: Callable[[str], None]) -> None:
        self.uri = uri
        self._say = say
        self.broken = False
        self._open: tuple[str, str, str] | None = None  # experiment, key and id of the entry that is being written
        self._spec: RunSpec | None = None
        self._since = 0  # when the last trial ended

    @functools.cached_property
    def _store(self) -> Store:
        return Store(self.uri)

    @_never_fails
    def started(self, spec: RunSpec, tables: Tables) -> None:
        """Begin a run with its settings and the rows that it has."""
        self._begin(spec, Times.now().started)
        self._add(tables, Times.now())

    @_never_fails
    def evaluated(self, tables: Tables) -> None:
        """Log new rows: trials as nested runs, all others as metrics against the step."""
        self._add(tables, Times.now())

    @_never_fails
    def finished(self, result: RunResult, folder: Path) -> None:
        """Log the result and its files, and close the run."""
        self._finish(result, folder, Times.now())

    @_never_fails
    def failed(self, reason: str) -> None:
        """Close the run as failed."""
        self._end("FAILED", {"status": "failed", "reason": one_line(reason, self.uri)}, Times.now().ended)

    @_never_fails
    def killed(self) -> None:
        """Close the run, if it is still open, as one that could not say how it ended."""
        self._end("KILLED", {"status": "killed"}, Times.now().ended)

    @_never_fails
    def rebuilt(self, result: RunResult, folder: Path, tables: Tables, times: Times) -> None:
        """Log a finished run from its files, at the times when it happened."""
        self._begin(result.spec, times.started)
        self._add(tables, times)
        self._finish(result, folder, times)

    @_never_fails
    def abandoned(self, key: RunKey) -> None:
        """Close what a dead process, and its tracker with it, has left open."""
        self._store.close(key.dataset, str(key), {"status": "killed"})

    @_never_fails
    def is_logged(self, result: RunResult, folder: Path, tables: Tables) -> bool:
        """Whether the run's live entry was made from the very files in `folder`, and is whole."""
        files = entry.run_files(folder)
        sizes = _sizes(files) | {SPEC: len(_text(result.spec).encode())}
        tag, trials = (entry.DIGEST, entry.digest(files)), len(tables.get(TRIALS, ()))
        return self._store.has(result.key.dataset, str(result.key), tag, sizes, trials)

    @_never_fails
    def summarised(self, folder: Path) -> bool:
        """Have the tables, figures and report under `folder` as the one live summary; whether there are any."""
        files = entry.summary_files(folder)
        if not files:
            return False
        self._store.close(SUMMARY, SUMMARY, {"status": "killed"})  # what a killed process has left open
        tag = (entry.DIGEST, entry.digest(files))
        if self._store.has(SUMMARY, SUMMARY, tag, _sizes(files), 0):
            return True
        now = Times.now().started
        note = "Tables, figures and report over all runs, as the files had them when they were last made."
        run_id = self._store.begin(SUMMARY, SUMMARY, SUMMARY, {NOTE: note, **entry.source("summary")}, now)
        self._open = (SUMMARY, SUMMARY, run_id)
        for name, path in files.items():
            self._store.client.log_artifact(run_id, str(path), str(Path(name).parent) if "/" in name else None)
        table = files.get("tables/table1.csv")
        means = {  # MLflow takes no other characters in a metric's name
            re.sub(r"[^\w./ -]", "_", "table1/{dataset}/{network}/{method}".format(**row)): row["mean"]
            for row in (read_rows(table) if table else ())
        }
        self._store.log(run_id, {(name, 0): mean for name, mean in means.items()}, lambda _: now)
        self._end("FINISHED", {"status": "done", **dict([tag])}, Times.now().ended)
        return True

    @_never_fails
    def link(self) -> str:
        """The address that opens MLflow's page at the runs."""
        return self._store.link()

    def _begin(self, spec: RunSpec, started: int) -> None:
        key = str(RunKey(spec.dataset, spec.method, spec.seed))
        tags = entry.first_tags(spec, git_commit())
        run_id = self._store.begin(spec.dataset, entry.title(spec), key, tags, started)
        self._open, self._spec, self._since = (spec.dataset, key, run_id), spec, started
        self._store.log(run_id, {}, lambda _: started, dict(entry.flatten(spec.model_dump())))
        self._store.client.log_text(run_id, _text(spec), SPEC)
        self._store.log_dataset(run_id, **entry.dataset(spec))

    def _add(self, tables: Tables, times: Times) -> None:
        if self._open is None or self._spec is None:
            return
        experiment, _, run_id = self._open
        if found := entry.points(tables):
            self._store.log(run_id, found, times.at)
        rows = tables.get(TRIALS, ())
        whole, spent = sum(float(row["seconds"]) for row in rows), 0.0
        for row in rows:
            spent += float(row["seconds"])
            name, status, values, metrics = entry.trial(row)
            until = times.after(spent / whole if whole else 1.0)
            tags = {**entry.nouns(self._spec), "status": status}
            self._store.log_child(experiment, name, run_id, tags, (metrics, values), (self._since, until))
            self._since = until

    def _finish(self, result: RunResult, folder: Path, times: Times) -> None:
        if self._open is None:
            return
        run_id, paths = self._open[2], entry.run_files(folder)
        self._store.log(run_id, entry.outcome(result, HYPERPARAMETERS in paths), lambda _: times.ended)
        for path in paths.values():
            self._store.client.log_artifact(run_id, str(path))
        self._end("FINISHED", entry.last_tags(result, folder), times.ended)

    def _let_go(self, status: str, tags: dict[str, str]) -> None:
        """Close an entry that is not whole, without trying for long."""
        if self._open is not None:
            self._store.hurry()
            with suppress(Exception):
                self._end(status, tags, Times.now().ended)

    def _end(self, status: str, tags: dict[str, str], ended: int) -> None:
        if self._open is None:
            return
        self._store.end(*self._open, status, tags, ended)
        self._open = None


def _text(spec: RunSpec) -> str:
    return spec.model_dump_json(indent=1)


def _sizes(files: Mapping[str, Path]) -> dict[str, int]:
    return {name: path.stat().st_size for name, path in files.items()}
