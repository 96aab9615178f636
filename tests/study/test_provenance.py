"""The commit that a run records: the checkout's own, or `unknown`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cpmlho.study.harness import provenance
from cpmlho.study.harness.provenance import git_commit

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Run git in a folder, with no configuration of this machine's."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def run(folder: Path, *arguments: str) -> str:
        name = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
        command = ["git", *name, "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return run


def copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that the package lies in a folder, with one module."""
    package = folder / "src" / "cpmlho"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(provenance, "HERE", package)
    return package


@pytest.fixture
def checkout(tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the package with one commit."""
    folder = tmp_path / "checkout"
    copied(folder, monkeypatch)
    git(tmp_path, "init", "-q", "checkout")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_checkout_gives_its_commit_and_says_if_the_package_differs(checkout: Path, git: Git) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "notes.txt").write_text("not in the package")
    assert git_commit() == commit
    (checkout / "src" / "cpmlho" / "__init__.py").write_text("x = 1\n")
    assert git_commit() == f"{commit}-dirty"


def test_a_shallow_clone_gives_its_commit(
    checkout: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{checkout}", "shallow")
    monkeypatch.setattr(provenance, "HERE", tmp_path / "shallow" / "src" / "cpmlho")
    assert git_commit() == git(checkout, "rev-parse", "HEAD")


def test_a_submodule_gives_its_own_commit(
    checkout: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "outer")
    git(tmp_path / "outer", "submodule", "--quiet", "add", str(checkout), "inner")
    git(tmp_path / "outer", "commit", "-q", "-m", "outer")
    monkeypatch.setattr(provenance, "HERE", tmp_path / "outer" / "inner" / "src" / "cpmlho")
    assert git_commit() == git(checkout, "rev-parse", "HEAD") != git(tmp_path / "outer", "rev-parse", "HEAD")


@pytest.mark.parametrize("ignored", [False, True])
def test_a_copy_in_another_repository_has_no_commit(
    checkout: Path, git: Git, monkeypatch: pytest.MonkeyPatch, ignored: bool
) -> None:
    copied(checkout / "vendor" / "copy", monkeypatch)
    if ignored:  # as the environment that the package is installed into
        (checkout / ".gitignore").write_text("vendor\n")
        git(checkout, "add", ".gitignore")
        git(checkout, "commit", "-q", "-m", "second")
    assert git_commit() == "unknown"


def test_a_copy_that_another_repository_tracks_has_its_commit(
    checkout: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(checkout / "vendor" / "copy", monkeypatch)
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "second")
    assert git_commit() == git(checkout, "rev-parse", "HEAD")


def test_the_repository_that_a_hook_exports_is_not_taken_for_the_checkout(
    checkout: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / ".git" / "index"))
    assert git_commit() == commit


def test_without_git_or_without_a_repository_there_is_no_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert git_commit() == "unknown"
    shutil.rmtree(checkout / ".git")
    assert git_commit() == "unknown"


@pytest.mark.skipif(os.getuid() != 0, reason="gives the checkout to another user")
def test_a_checkout_of_another_user_is_refused_by_git_unless_it_is_declared_safe(
    checkout: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    for path in (checkout, checkout / ".git"):
        os.chown(path, 12345, 12345)
    assert git_commit() == "unknown"
    for name, value in {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": "*"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert git_commit() == commit
