"""Where runs are tracked: the store's address, how it may be shown, and the way from an error to its remedy."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

TRACKING_URI = "MLFLOW_TRACKING_URI"
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")  # variables that MLflow's client reads
LOCAL = ("sqlite:", "file:")  # an @ in a path is no password
LONGEST = 2000  # characters of an error; MLflow's remedies stand at its end
PAGE = "http://127.0.0.1:5000"  # where `mlflow ui` serves


def tracking_uri(configured: str | None, root: Path) -> str:
    """The store to log to: the configured one, else $MLFLOW_TRACKING_URI, else `mlflow.db` under the project's root."""
    return configured or exported() or f"sqlite:///{root.resolve() / 'mlflow.db'}"


def exported() -> str:
    """The store that the environment names, if any; a secret of a CI often ends with a line break."""
    return os.environ.get(TRACKING_URI, "").strip()


def database(uri: str) -> Path | None:
    """The file of an SQLite store."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def shown(uri: str) -> str:
    """The store's address without user, password and options."""
    if uri.startswith(LOCAL):
        return uri
    return re.sub("//.*@", "//", uri).partition("?")[0]  # a password may hold any character, also @, / and ?


def page(uri: str) -> str:
    """The address of MLflow's page on the store: the server's own, or that of `mlflow ui` on this machine."""
    return shown(uri).rstrip("/") if uri.startswith(("http:", "https:")) else PAGE


def one_line(error: BaseException | str, uri: str) -> str:
    """What an error says, on one line, without statements and secrets; of a very long one, its two ends."""
    text = " ".join(str(error).partition("[SQL:")[0].split()) or type(error).__name__
    text = text.replace(uri, shown(uri)).replace("<database_uri>", shown(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = text.replace("'mlflow ", f"'{command('mlflow')} ")
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def command(name: str) -> str:
    """The path of a program beside this Python, as a person would type it from here."""
    path = Path(sys.executable).with_name(name)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _secrets(uri: str) -> set[str]:
    found = {os.environ.get(name, "") for name in SECRETS}
    if not uri.startswith(LOCAL):
        user = re.match("[^/]*//(.*@)", uri)
        password = user[1][:-1].partition(":")[2] if user else ""
        options = [value for name, value in parse_qsl(urlsplit(uri).query) if re.search("pass|secret|token", name)]
        found |= {user[1] if user else "", password, unquote(password), *options}
    return found - {""}
