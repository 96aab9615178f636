"""The published run as a Workflow Run RO-Crate: a folder for an archive, with what says what it is and how it was made.

Profiles: Process Run Crate 0.5, Workflow Run Crate 0.5 and Workflow RO-Crate 1.0, on RO-Crate 1.1.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any, NamedTuple

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from cpmlho.study.archive import ARCHIVE, CHECKSUM, archived
from cpmlho.study.files import write_folder
from cpmlho.study.protocol import Protocol
from cpmlho.study.results import RESULT, ResultError

WORKFLOW = "Snakefile"
BESIDE = ("LICENSE", "requirements.lock", "workflow")  # what the workflow needs, and under what licence it is
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
CONTEXTS = ["https://w3id.org/ro/terms/workflow-run/context", {"sha256": "https://schema.org/sha256"}]
FORMATS = {
    **{".csv": "text/csv", ".md": "text/markdown", ".tex": "application/x-tex", ".html": "text/html"},
    **{".png": "image/png", ".svg": "image/svg+xml", ".xz": "application/x-xz", ".yaml": "application/yaml"},
    ".json": "application/json",
}


class Made(NamedTuple):
    """What the archived runs say of their making."""

    runs: int
    started: str | None  # the first of them, where each says so
    ended: str | None  # the last
    software: list[tuple[str, str]]  # names and versions
    commits: list[str]


def write_crate(protocol: Protocol, configs: Sequence[Path], out: Path, say: Callable[[str], None]) -> None:
    """Write the crate of a published run: the same bytes for the same files.

    Args:
        protocol: what was run.
        configs: the files that it was read from.
        out: the folder of the crate; a crate that is there is replaced.
        say: takes a line.

    Raises:
        ResultError: a part is missing, the archive is damaged, or the folder holds something else.
    """
    if out.exists() and not (out / "ro-crate-metadata.json").is_file() and any(out.iterdir()):
        raise ResultError(f"{out}: not empty, and no crate; name another folder with --out")
    results = Path(protocol.results_dir)
    inputs, outputs = list(dict.fromkeys([*_workflow_files(), *configs])), list(_outputs(results))
    missing = [str(path) for path in (Path(WORKFLOW), *inputs) if not path.is_file()]
    if missing:
        raise ResultError(f"{missing[0]}: missing; a crate is made from the root of the checkout")
    made = made_by(results)
    write_folder(out, describe(protocol, made, inputs, outputs).write)
    say(f"{out}: {made.runs} runs, {len(outputs)} files of results, {len(inputs) + 1} of the workflow")


def _workflow_files() -> Iterator[Path]:
    for path in map(Path, BESIDE):
        yield from sorted(_visible(path.rglob("*"))) if path.is_dir() else [path]


def _visible(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if path.is_file() and not path.name.startswith("."))


def _outputs(results: Path) -> Iterator[Path]:
    """Page, tables, figures and the archive of the runs."""
    whole = [results / name for name in (ARCHIVE, CHECKSUM, "report.html")]
    for path in whole:
        if not path.is_file():
            raise ResultError(f"{path}: missing; make it first: the verbs tables, figures, report and pack")
    yield from whole
    yield from sorted(path for part in ("tables", "figures") for path in _visible((results / part).glob("*")))


def made_by(results: Path) -> Made:
    """When and with what the archived runs were made.

    Raises:
        ResultError: the archive is missing or damaged.
    """
    found = [json.loads(files[RESULT]) for _, files in archived(results)]
    times = {name: [each.get(name) for each in found] for name in ("started", "ended")}
    software = {(name, str(number)) for each in found for name, number in each["versions"].items()}
    return Made(
        runs=len(found),
        started=None if None in times["started"] else min(times["started"]),
        ended=None if None in times["ended"] else max(times["ended"]),
        software=sorted(software),
        commits=sorted({each["git_commit"] for each in found}),
    )


def describe(protocol: Protocol, made: Made, inputs: Sequence[Path], outputs: Sequence[Path]) -> ROCrate:
    """The crate of these files: workflow, what it read, what it made, by whom, when and with what."""
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts += CONTEXTS
    workflow = crate.add_workflow(WORKFLOW, WORKFLOW, main=True, lang="snakemake", lang_version=version("snakemake"))
    agent = _add(crate, "#authors", "Organization", name=metadata("cpmlho")["Author"])
    licence = _add(crate, "https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License")
    _set(
        workflow,
        **{"name": f"Workflow of {metadata('cpmlho')['Summary']}", "sha256": _sha256(Path(WORKFLOW))},
        **{"license": licence, "creator": agent, "version": version("cpmlho")},
        softwareRequirements=[_software(crate, *each) for each in made.software],
    )
    results = Path(protocol.results_dir)
    read, written = ([_file(crate, path, results) for path in paths] for paths in (inputs, outputs))
    archive = next(path for path in outputs if path.name == ARCHIVE)
    action = crate.add_action(
        workflow,
        f"#{uuid.uuid5(uuid.NAMESPACE_OID, _sha256(archive))}",
        object=[*read, *_data(crate, protocol)],
        result=written,
        properties={
            "name": f"{made.runs} runs, and the tables, figures and page made of them",
            "description": f"Made from commit {', '.join(made.commits)}",
            "actionStatus": "http://schema.org/CompletedActionStatus",
            **({"startTime": made.started} if made.started else {}),
            **({"endTime": made.ended} if made.ended else {}),
        },
    )
    action["agent"] = agent
    _set(
        crate.root_dataset,
        **{"name": metadata("cpmlho")["Summary"], "license": licence, "creator": agent, "mentions": [action]},
        description=f"{made.runs} runs with their tables, figures and report. {protocol.note}".strip(),
        datePublished=made.ended or datetime.now(UTC).date().isoformat(),
        conformsTo=[_add(crate, each, "CreativeWork", name=name, version=v) for each, (name, v) in PROFILES.items()],
    )
    return crate


def _set(entity: Any, **properties: Any) -> None:
    for name, value in properties.items():
        entity[name] = value


def _add(crate: ROCrate, identifier: str, kind: str, **properties: Any) -> ContextEntity:
    return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))


def _software(crate: ROCrate, name: str, number: str) -> ContextEntity:
    return _add(crate, f"#{name}-{number}", "SoftwareApplication", name=name, softwareVersion=number)


def _data(crate: ROCrate, protocol: Protocol) -> list[ContextEntity]:
    """The datasets' files, which are no part of the crate, by their checksums."""
    return [
        _add(
            crate, f"#{data.folder}/{name}", "CreativeWork", name=f"{data.folder}: {name}, uncompressed", sha256=digest
        )
        for data in (protocol.datasets[name] for name in protocol.run.datasets)
        for name, digest in data.sha256.items()
    ]


def _file(crate: ROCrate, path: Path, results: Path) -> Any:
    place = Path(os.path.relpath(path))
    if ".." in place.parts:  # from outside the checkout
        place = Path(results.name, path.relative_to(results)) if path.is_relative_to(results) else Path(path.name)
    properties = {"sha256": _sha256(path), "encodingFormat": FORMATS.get(path.suffix, "text/plain"), "name": path.name}
    return crate.add_file(path, place, properties=properties, record_size=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
