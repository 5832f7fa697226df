"""``arrayhost serve``: a host in the foreground."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from arrayhost.cli.options import Failure, address_option
from arrayhost.client.ways import KEY_FILE_VARIABLE
from arrayhost.errors import NotAuthorizedError
from arrayhost.host.objects import Registration
from arrayhost.manager import ArrayManager
from arrayhost.serving import DRAIN_SECONDS, LOG_FORMAT, make_server
from arrayhost.serving import serve as serve_until_told
from arrayhost.standing import default_address

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in new releases of click only
    """A number of bytes, such as 500M or 2GiB."""

    name = "size"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a size."""
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().removesuffix("ib").removesuffix("b")
        number, unit = (text[:-1], text[-1]) if text[-1:].isalpha() else (text, "")
        try:
            size = int(float(number) * _UNITS[unit])
        except (ValueError, KeyError, OverflowError):
            self.fail(f"{value!r} is no size; write 500M or 2GiB", param, ctx)
        if size < self.least:
            self.fail(f"{value!r}: a size is {self.least} or more", param, ctx)
        return size


@click.command()
@address_option
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Keep named arrays as files here.")
@click.option(
    "--undo-bytes",
    type=_Size(least=0),
    metavar="SIZE",
    help="With a directory: writes up to this size are undone after a kill; 64M unless given, 0 for none.",
)
@click.option(
    "--listen",
    "ports",
    multiple=True,
    metavar="tcp://HOST:PORT",
    help="Listen on this TCP port besides, for who has the key; needs --key-file. Repeatable.",
)
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar=KEY_FILE_VARIABLE,
    help="The key of clients over TCP.",
)
@click.option("--tls", type=(str, str), default=None, metavar="CERTIFICATE KEY", help="Files for TLS on the TCP ports.")
@click.option("--client-ca", type=click.Path(exists=True, dir_okay=False), help="Require client certificates of these.")
@click.option("--insecure-no-tls", is_flag=True, help="Listen on other addresses than loopback also without TLS.")
@click.option("--max-bytes", type=_Size(), metavar="SIZE", help="Bound on the memory of all arrays: 500M, 2GiB.")
@click.option(
    "--register",
    "registered",
    multiple=True,
    metavar="MODULE:ATTR",
    help="A function or class that clients may create by its name, or a manager class with all its types. Repeatable.",
)
@click.option("--metrics", type=click.IntRange(0, 65535), metavar="PORT", help="Serve metrics on 127.0.0.1:PORT.")
@click.option("--drain", default=DRAIN_SECONDS, show_default=True, help="Seconds that running requests get at the end.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def serve(
    address: str | None,
    directory: Path | None,
    undo_bytes: int | None,
    ports: tuple[str, ...],
    key_file: Path | None,
    tls: tuple[str, str] | None,
    client_ca: str | None,
    insecure_no_tls: bool,
    max_bytes: int | None,
    registered: tuple[str, ...],
    metrics: int | None,
    drain: float,
    log_level: str,
) -> int:
    """Host arrays until SIGTERM or Ctrl-C; what runs then is finished first.

    One line for each event goes to standard error. Under systemd it says when it is ready and when it stops.
    """
    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    options: dict[str, Any] = {"max_bytes": max_bytes}
    if ports:
        options |= _network(ports, key_file, tls, client_ca) | {"insecure": insecure_no_tls}
    if directory is not None:
        options["directory"] = str(directory.absolute())
    if undo_bytes is not None:
        options["undo_bytes"] = undo_bytes
    # Code that is named on the command line lies where the command is run, as with `python -m`.
    sys.path.insert(0, os.getcwd())
    registry = dict(pair for text in registered for pair in _registrations(text))
    where = address or default_address()
    try:
        server = make_server(where, registry, **options)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--address") from error
    except NotAuthorizedError as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(f"{error.strerror or error}; another host may run there: 'arrayhost doctor' tells") from error
    if metrics is None:
        serve_until_told(server, drain_seconds=drain)
        return 0
    from arrayhost.cli.metrics import serving_metrics

    with serving_metrics(server, metrics):
        serve_until_told(server, drain_seconds=drain)
    return 0


def _network(
    ports: tuple[str, ...], key_file: Path | None, tls: tuple[str, str] | None, client_ca: str | None
) -> dict[str, Any]:
    """Options of a host that listens on TCP ports."""
    if key_file is None:
        raise click.UsageError("--listen needs --key-file: clients over TCP have to prove that they have its key")
    if client_ca is not None and tls is None:
        raise click.UsageError("--client-ca needs --tls")
    key = key_file.read_bytes().strip()
    if not key:
        raise click.BadParameter(f"{key_file} is empty", param_hint="--key-file")
    files = None if tls is None else (*tls, client_ca) if client_ca is not None else tls
    return {"listen": ports, "authkey": key, "tls": files}


def _registrations(text: str) -> list[tuple[str, Registration]]:
    """Find what ``--register module:attr`` names."""
    module, _, attribute = text.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint="--register") from error
    if isinstance(found, type) and issubclass(found, ArrayManager):
        return [(typeid, registration) for typeid, (registration, _) in found._registry.items()]
    if not callable(found):
        raise click.BadParameter(
            f"{text!r} is a {type(found).__name__}, which cannot be called", param_hint="--register"
        )
    return [(attribute.rpartition(".")[2], Registration(found))]
