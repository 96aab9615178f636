"""Export of a published protocol as a Workflow Run RO-Crate: a folder that an archive with DOIs understands.

Profiles: Process Run Crate 0.5, Workflow Run Crate 0.5 and Workflow RO-Crate 1.0, on RO-Crate 1.1.
"""

from __future__ import annotations

import json
import mimetypes
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from cpmlho.study.archive import ARCHIVE, CHECKSUM, archived
from cpmlho.study.files import write_folder
from cpmlho.study.protocol import Protocol
from cpmlho.study.results import RESULT, ResultError

WORKFLOW = Path("Snakefile")
BESIDE = ("LICENSE", "requirements.lock", "workflow")  # what the workflow needs, and its licence
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"


def write_crate(protocol: Protocol, configs: Sequence[Path], out: Path, say: Callable[[str], None]) -> None:
    """Write the crate of a published protocol; the same files give the same bytes.

    Args:
        protocol: what was run.
        configs: the files that it was read from.
        out: the folder of the crate; an earlier crate is replaced.
        say: prints a line.

    Raises:
        ResultError: a part is missing, the archive is damaged, or the folder holds something else.
    """
    if out.exists() and not (out / "ro-crate-metadata.json").is_file() and any(out.iterdir()):
        raise ResultError(f"{out}: not empty, and no crate; name another folder with --out")
    results = Path(protocol.results_dir)
    whole = [results / name for name in (ARCHIVE, CHECKSUM, "report.html")]
    inputs = list(dict.fromkeys([*_files(*map(Path, BESIDE)), *configs]))
    for path in (WORKFLOW, *inputs):
        if not path.is_file():
            raise ResultError(f"{path}: missing; run this command in the root of the checkout")
    for path in whole:
        if not path.is_file():
            raise ResultError(f"{path}: missing; make it first: the verbs tables, figures, report and pack")
    runs = [json.loads(files[RESULT]) for _, files in archived(results)]
    outputs = [*whole, *_files(*results.glob("tables"), *results.glob("figures"))]
    write_folder(out, _crate(protocol, runs, inputs, outputs).write)
    say(f"{out}: {len(runs)} runs, {len(outputs)} files of results, {len(inputs) + 1} of the workflow")


def _files(*paths: Path) -> Iterator[Path]:
    """Yield files and the visible files under folders, in order."""
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (each for each in found if not each.is_dir() and not each.name.startswith("."))


def _crate(protocol: Protocol, runs: list[dict[str, Any]], inputs: list[Path], outputs: list[Path]) -> ROCrate:
    """Describe the workflow, the files that it read and made, by whom and when."""
    crate, results = ROCrate(version="1.1"), Path(protocol.results_dir)
    crate.metadata.extra_contexts.append(CONTEXT)

    def entity(identifier: str, kind: str, **properties: str) -> ContextEntity:
        return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))

    def file(path: Path) -> Any:
        place = Path(os.path.relpath(path))
        if ".." in place.parts:  # from outside the checkout
            place = Path(results.name, path.relative_to(results)) if path.is_relative_to(results) else Path(path.name)
        properties = {"name": path.name, "encodingFormat": mimetypes.guess_type(path)[0] or "text/plain"}
        return crate.add_file(path, place, properties=properties, record_size=True)

    summary, count = metadata("cpmlho")["Summary"], f"{len(runs)} runs"
    commits = ", ".join(sorted({run["git_commit"] for run in runs}))
    started, ended = (sorted(run[name] for run in runs if run[name]) for name in ("started", "ended"))
    authors = entity("#authors", "Organization", name=metadata("cpmlho")["Author"])
    licence = entity("https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License")
    workflow = crate.add_workflow(WORKFLOW, WORKFLOW, main=True, lang="snakemake", lang_version=version("snakemake"))
    action = crate.add_action(
        workflow,
        f"#{uuid.uuid5(uuid.NAMESPACE_OID, (results / CHECKSUM).read_text())}",
        object=[file(path) for path in inputs],
        result=[file(path) for path in outputs],
    )
    said: dict[Any, dict[str, Any]] = {
        workflow: {"name": f"Workflow of {summary}", "version": version("cpmlho")},
        action: {
            "name": f"{count}, and the tables, figures and page made of them",
            "description": f"Made from commit {commits}",
            "agent": authors,
            "actionStatus": "http://schema.org/CompletedActionStatus",
            **({"startTime": started[0], "endTime": ended[-1]} if len(started) == len(ended) == len(runs) else {}),
        },
        crate.root_dataset: {
            "name": summary,
            "description": f"{count} with their tables, figures and report. {protocol.note}".strip(),
            "datePublished": ended[-1] if ended else datetime.now(UTC).date().isoformat(),
            "mentions": [action],
            "conformsTo": [entity(url, "CreativeWork", name=name, version=v) for url, (name, v) in PROFILES.items()],
        },
    }
    for each in (workflow, crate.root_dataset):
        said[each] |= {"license": licence, "creator": authors}
    for each, properties in said.items():
        for name, value in properties.items():
            each[name] = value
    return crate
