"""A digest of what code does, not of how it is written.

It is taken of syntax trees without docstrings, comments, annotations and imports from this package, statement by
statement and in no order: to reword, rename or move a module, or to move a definition from one to another, changes
nothing; to change an operator, a constant or a name does. It does not depend on the version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache

PACKAGE = "cpmlho"
TYPING = ("__future__", "typing", "collections.abc", PACKAGE)  # what is imported from here computes nothing by itself
REGISTRATION = ("method", "dataset", "network")  # decorators that give a name, a label and a colour


def digest_of(sources: Iterable[str]) -> str:
    """SHA-256 over the statements of several modules, given as text."""
    statements = [statement for source in sources for statement in _texts(source)]
    return hashlib.sha256("\n".join(sorted(statements)).encode()).hexdigest()


@cache
def _texts(source: str) -> tuple[str, ...]:
    return tuple(repr(canonical(statement)) for statement in _statements(ast.parse(source)))


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules of this package that a module imports, anywhere but for annotations, without the package's name."""
    for node in ast.walk(_Stripped().visit(tree)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{PACKAGE}."):
            module = node.module.removeprefix(f"{PACKAGE}.")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def foreign(tree: ast.Module) -> set[str]:
    """The packages outside of Python's own library that a module imports, anywhere."""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, PACKAGE}


def canonical(node: object) -> object:
    """A tree as nested tuples, without what is empty, so that no version's additions show."""
    if isinstance(node, ast.AST):
        fields = ((name, canonical(value)) for name, value in ast.iter_fields(node) if value not in (None, []))
        return (type(node).__name__, *(field for field in fields if field[0] not in ("type_comment", "kind")))
    return tuple(map(canonical, node)) if isinstance(node, list) else repr(node)


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in _Stripped().visit(tree).body:
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith(TYPING)):
            yield node


class _Stripped(ast.NodeTransformer):
    """Takes away what decides no number: docstrings, annotations, what only a type checker reads, registration."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns, node.decorator_list = None, [each for each in node.decorator_list if not _registers(each)]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)  # a field without a default keeps its name and place
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else self.generic_visit(node)


def _registers(decorator: ast.expr) -> bool:
    """Whether a decorator is `method(...)`, or `registry.method(...)` and the like."""
    called = decorator.func if isinstance(decorator, ast.Call) else None
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name in REGISTRATION
