"""The published schema of result.json: it is the model's, and the published runs satisfy it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from test_results import result

from cpmlho.study.archive import ARCHIVE, archived
from cpmlho.study.results import RESULT, schema

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "result.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    content = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(content)
    return Draft202012Validator(content)


def test_the_committed_schema_is_the_models() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema(), "python -m cpmlho schema > docs/result.schema.json"


@pytest.mark.parametrize("protocol", ["published", "multiverse"])
def test_every_published_run_satisfies_the_schema(protocol: str, validator: Draft202012Validator) -> None:
    assert (ROOT / "results" / protocol / ARCHIVE).exists()
    found = {folder: json.loads(files[RESULT]) for folder, files in archived(ROOT / "results" / protocol)}
    assert {folder: each.message for folder, run in found.items() for each in validator.iter_errors(run)} == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "finished"}, "is not one of"),
        ({"steps": "many"}, "is not of type"),
        ({"surprise": 1}, "Additional properties are not allowed"),
        ({"numerics": None}, "is not of type"),
    ],
)
def test_another_result_is_refused(validator: Draft202012Validator, change: dict[str, Any], said: str) -> None:
    content = json.loads(result().model_dump_json())
    validator.validate(content)
    (error,) = validator.iter_errors({**content, **change})
    assert said in error.message
