"""The digest of the code: what leaves it as it is, and what cannot."""

import ast
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpmlho.study.harness import provenance, syntax
from cpmlho.study.harness.provenance import HERE, code_digest, git_commit, modules
from cpmlho.study.harness.syntax import digest_of, imported

METHODS = ["random_search", "bayesian_optimization", "fixed", "delta_stn", "cpmlho"]
SOURCES = [path.read_text() for path in modules("cpmlho")]
DIGEST = digest_of(SOURCES)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters='"\\\r'), max_size=40)


def edited(index, edit):
    tree = ast.parse(SOURCES[index])
    edit(tree)
    return [*SOURCES[:index], ast.unparse(ast.fix_missing_locations(tree)), *SOURCES[index + 1 :]]


@settings(max_examples=25)
@given(st.integers(0, len(SOURCES) - 1), TEXT, st.data())
def test_a_docstring_a_comment_or_an_annotation_changes_nothing(index, text, data):
    def edit(tree):
        documented = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.FunctionDef) and ast.get_docstring(n)]
        data.draw(st.sampled_from(documented)).body[0].value.value = text
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            for argument in function.args.args:
                argument.annotation = ast.Constant(text)

    assert digest_of([*edited(index, edit), f"# {text!r}\n"]) == DIGEST


@settings(max_examples=25)
@given(st.integers(0, len(SOURCES) - 1), st.integers(-10, 10), st.data())
def test_another_constant_always_changes_it(index, number, data):
    def constants(tree):
        return [
            n
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef)
            for statement in function.body[1:]
            for n in ast.walk(statement)
            if isinstance(n, ast.Constant) and isinstance(n.value, int | float) and not isinstance(n.value, bool)
        ]

    tree = ast.parse(SOURCES[index])
    if not constants(tree):
        return
    which = data.draw(st.integers(0, len(constants(tree)) - 1))

    def edit(tree):
        constants(tree)[which].value += number

    assert (digest_of(edited(index, edit)) == DIGEST) == (number == 0)


@settings(max_examples=25)
@given(st.integers(0, len(SOURCES) - 1), st.data())
def test_another_operator_always_changes_it(index, data):
    def operations(tree):
        arithmetic = ast.Add | ast.Sub | ast.Mult
        return [n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, arithmetic)]

    count = len(operations(ast.parse(SOURCES[index])))
    if count == 0:
        return
    which = data.draw(st.integers(0, count - 1))

    def edit(tree):
        operations(tree)[which].op = ast.Div()

    assert digest_of(edited(index, edit)) != DIGEST


def test_modules_and_definitions_may_move_and_be_renamed():
    a = "from cpmlho.core.x import g\n\nC = 1\n\n\ndef f(x: int) -> int:\n    return g(x) + C\n"
    b = "def g(x):\n    return x * 2\n"
    both = digest_of([a, b])
    assert digest_of([b, a.replace("cpmlho.core.x", "cpmlho.core.y")]) == both
    assert digest_of([a.replace("from cpmlho.core.x import g\n", "") + b]) == both
    assert digest_of([a.replace("+ C", "- C"), b]) != both
    assert digest_of([a, b.replace("g(x)", "h(x)")]) != both
    assert digest_of([a, b, "D = 2\n"]) != both


def test_what_a_method_is_called_and_how_it_is_drawn_changes_nothing():
    code = '@method(Settings, label="A", colour="#000000")\ndef f(x):\n    return x\n'
    assert digest_of([code]) == digest_of([code.replace("A", "B").replace("#0", "#1")])
    assert digest_of([code]) != digest_of([code.replace("@method(", "@torch.no_grad(")])


@pytest.mark.parametrize("name", ["method", "dataset", "network"])
@pytest.mark.parametrize("module", ["", "cpmlho.", "registry.", "cpmlho.study.methods."])
def test_a_registration_is_known_by_whatever_name_its_module_has(module, name):
    code = f'@{module}{name}(label="A")\ndef f(x):\n    return x\n'
    assert digest_of([code]) == digest_of([code.replace('"A"', '"B"')]) == digest_of([code.partition("\n")[2]])
    assert digest_of([code]) != digest_of([code.replace(f"{name}(", f"{name}s(")])


def test_what_a_file_imports_from_elsewhere():
    code = "import os, numpy.linalg as la\nfrom cpmlho.core.x import A\nfrom .own import B\n"
    code += "def f():\n    from sklearn.svm import SVC\n"
    assert syntax.foreign(ast.parse(code)) == {"numpy", "sklearn"}


def test_imports_for_the_type_checker_are_none():
    code = "if TYPE_CHECKING:\n    from cpmlho.core.x import A\nfrom cpmlho.core.y import B\nimport torch\n"
    assert list(imported(ast.parse(code))) == ["core.y", "core.y.B"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_its_own_file_and_no_other_methods(method):
    own = [path.stem for path in modules(method) if path.parent.name == "methods"]
    assert own == [method]
    assert HERE / "study/data.py" in modules(method)


def test_the_digest_does_not_depend_on_reporting_tracking_or_files():
    names = {path.relative_to(HERE).as_posix() for method in METHODS for path in modules(method)}
    assert not [name for name in names if name.startswith(("study/report", "study/tracking", "study/harness/files"))]
    assert len({code_digest(method) for method in METHODS}) == len(METHODS)


def test_every_module_named_exists():
    for name in provenance.SHARED:
        assert (HERE / f"{name.replace('.', '/')}.py").is_file()
    assert syntax.PACKAGE == "cpmlho"


def test_the_commit_is_the_codes_own_whatever_repository_was_exported(tmp_path, monkeypatch):
    """As in a hook or a CI job of another repository."""
    expected = git_commit()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert git_commit() == expected
