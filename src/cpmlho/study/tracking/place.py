"""The address of the MLflow store, and what messages may say about it. It does not import MLflow."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

TRACKING_URI = "MLFLOW_TRACKING_URI"
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")  # read by MLflow's client
SERVER = ("http:", "https:")
LOCAL = ("sqlite:", "file:")  # an @ in a path is not a password
LONGEST = 2000  # characters of an error; its remedy often comes last
HTML = re.compile(r"<!doctype html|<html", re.IGNORECASE)
CODE = re.compile(r"error code (\d+)|too many (\d+) error responses")


def tracking_uri(configured: str | None, root: Path) -> str:
    """Return the configured store, else $MLFLOW_TRACKING_URI, else `mlflow.db` in the project's root."""
    return configured or exported() or f"sqlite:///{root.resolve() / 'mlflow.db'}"


def exported() -> str:
    """Return the store that the environment names, if any, without the line break at the end of many CI secrets."""
    return os.environ.get(TRACKING_URI, "").strip()


def database(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def folder_name(results: Path, uri: str) -> str:
    """Return the name of a results folder in a store, so that the same run in two folders has two entries.

    It is relative to the folder of an SQLite file, so that a moved checkout keeps its entries. Otherwise it is the
    whole path, because several checkouts may log to one server.
    """
    store, results = database(uri), results.resolve()
    home = store.resolve().parent if store else None
    return str(results.relative_to(home) if home and results.is_relative_to(home) else results)


def shown(uri: str) -> str:
    """Return the store's address without user, password and options."""
    if uri.startswith(LOCAL):
        return uri
    return re.sub("//.*@", "//", uri).partition("?")[0]  # a password may hold any character, also @, / and ?


def one_line(error: BaseException | str, uri: str) -> str:
    """Return the message of an error on one line, without SQL, HTML, secrets, and the middle of a long one."""
    text = " ".join(str(error).partition("[SQL:")[0].split()) or type(error).__name__
    status = next(filter(None, code.groups()), "") if (code := CODE.search(text)) else ""
    if HTML.search(text):
        text = f"the address answered HTML{f' (status {status})' * bool(status)}: a proxy or a login page?"
    elif code and code[2]:
        text = f"the address answered with status {status} at every try: a proxy, or an overloaded server?"
    text = text.replace(uri, shown(uri)).replace("<database_uri>", shown(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = text.replace("'mlflow ", f"'{command('mlflow')} ") + _proxied(uri)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def command(name: str) -> str:
    """Return the path of a program next to this Python, as a person would type it from here."""
    path = Path(sys.executable).with_name(name)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _proxied(uri: str) -> str:
    """Return a remark about the proxy that applies to a server, if any, and how to exempt the server from it."""
    host, scheme = (urlsplit(shown(uri)).hostname or "", uri.partition(":")[0]) if uri.startswith(SERVER) else ("", "")
    proxy = next((name for name in (scheme, "all") if name in getproxies()), None)
    if not host or proxy is None or proxy_bypass(host):
        return ""
    return f" ({proxy}_proxy is set and applies to {host}; NO_PROXY={host} exempts it)"


def _secrets(uri: str) -> set[str]:
    found = {os.environ.get(name, "") for name in SECRETS}
    if not uri.startswith(LOCAL):
        user = re.match("[^/]*//(.*@)", uri)
        password = user[1][:-1].partition(":")[2] if user else ""
        options = [value for name, value in parse_qsl(urlsplit(uri).query) if re.search("pass|secret|token", name)]
        found |= {user[1] if user else "", password, unquote(password), *options}
    return found - {""}
