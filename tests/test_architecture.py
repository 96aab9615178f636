"""Each part imports only what it may: library and study stay apart, and the command line starts quickly."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/cpmlho"
FORBIDDEN = {
    "core": {
        *("pydantic", "yaml", "pandas", "mlflow", "snakemake", "scipy", "skopt", "matplotlib"),
        *("csv", "json", "pathlib", "cpmlho.study"),
    },
    "study/methods": {"mlflow", "snakemake", "pandas", "cpmlho.study.tracking", "cpmlho.study.report"},
    "study/harness": {"mlflow", "snakemake", "pandas", "cpmlho.study.tracking", "cpmlho.study.report"},
    "study/report": {"torch", "torchvision", "mlflow", "snakemake", "skopt", "cpmlho.core", "cpmlho.study.tracking"},
    "study/tracking": {"torch", "pandas", "snakemake", "cpmlho.core", "cpmlho.study.report"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("part", FORBIDDEN)
def test_a_part_imports_only_what_it_may(part):
    files = list((SOURCE / part).rglob("*.py"))
    assert len(files) > 2
    for path in files:
        for name in imports(path):
            forbidden = [other for other in FORBIDDEN[part] if name == other or name.startswith(f"{other}.")]
            assert not forbidden, f"{path.name} imports {name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import cpmlho.__main__ as m; m.parser()", {"torch", "pydantic", "mlflow", "pandas", "numpy"}),
        ("import cpmlho.study.protocol, cpmlho.study.methods", {"torch", "mlflow", "pandas", "numpy"}),
        ("import cpmlho.study.data", {"torch", "torchvision"}),
        ("import cpmlho.core.tuner", {"pydantic", "yaml", "pandas", "mlflow", "scipy"}),
        ("import cpmlho.study.report.tables, cpmlho.study.report.figures", {"torch", "pandas", "matplotlib", "numpy"}),
        ("import cpmlho.study.workflow, cpmlho.study.command", {"torch", "mlflow", "pandas", "numpy", "snakemake"}),
        ("import cpmlho.study.harness.run", {"mlflow", "pandas", "skopt", "snakemake"}),
        ("import cpmlho.study.report.write, cpmlho.study.report.page", {"torch", "mlflow", "snakemake"}),
        ("import cpmlho.study.tracking", {"torch", "mlflow", "pandas"}),
    ],
)
def test_an_import_brings_no_more_than_it_needs(statement, absent):
    code = f"import sys; {statement}; print(*sorted({absent!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
