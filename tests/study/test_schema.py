"""The published schema of a run's result: it is the model's, and the published runs are as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from test_reporting import load, write

from cpmlho.study.archive import ARCHIVE, archived
from cpmlho.study.results import RESULT, run_dir, schema
from cpmlho.study.spec import RunKey

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    content = json.loads((DOCS / "result.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(content)
    return Draft202012Validator(content)


def test_the_committed_schema_is_what_the_model_gives() -> None:
    committed = (DOCS / "result.schema.json").read_text(encoding="utf-8")
    assert committed == schema(), "python -m cpmlho schema > docs/result.schema.json"


@pytest.mark.parametrize("archive", sorted(DOCS.glob(f"*/{ARCHIVE}")), ids=lambda path: path.parent.name)
def test_every_published_run_is_as_the_schema_says(archive: Path, validator: Draft202012Validator) -> None:
    found = {folder: json.loads(dict(files)[RESULT]) for folder, files in archived(archive.parent)}
    assert found
    assert {folder: each.message for folder, run in found.items() for each in validator.iter_errors(run)} == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "finished"}, "is not one of"),
        ({"steps": "many"}, "is not of type"),
        ({"surprise": 1}, "Additional properties are not allowed"),
        ({"code": None}, "is not of type"),
    ],
)
def test_another_result_is_refused(
    tmp_path: Path, validator: Draft202012Validator, change: dict[str, Any], said: str
) -> None:
    protocol, key = load(tmp_path), RunKey("mnist", "cpmlho", 0)
    write(protocol, key, 0.3)
    content = json.loads((run_dir(protocol.results_dir, key) / RESULT).read_text(encoding="utf-8"))
    validator.validate(content)
    (error,) = validator.iter_errors({**content, **change})
    assert said in error.message
