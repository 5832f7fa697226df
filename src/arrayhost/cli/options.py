"""What several commands have in common: the host's address, JSON, names and their completion, failing in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from arrayhost.client.ways import KEY_FILE_VARIABLE, read_key
from arrayhost.core.names import check_name
from arrayhost.errors import ArrayHostError, HostGoneError
from arrayhost.manager import ArrayManager, connect
from arrayhost.standing import ADDRESS_VARIABLE, default_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

__all__ = ["NAME", "Failure", "address_option", "connected", "host_options", "json_option", "missing_extra"]


class Failure(click.ClickException):
    """It cannot be done; the text says why and what to do."""

    exit_code = 1


def missing_extra(what: str, library: str, extra: str) -> Failure:
    """The failure of a command that needs a library which is not installed."""
    return Failure(f"{what} needs {library}: pip install 'arrayhost[{extra}]'")


def address_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--address``."""
    return click.option(
        "--address",
        metavar="ADDRESS",
        envvar=ADDRESS_VARIABLE,
        help="The host: unix:/path, unix:@name or tcp://HOST:PORT. By default your standing host.",
    )(command)


def _noted(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep an option's value for `connected`."""
    if value is not None:
        ctx.meta[f"arrayhost.{param.name}"] = value


def host_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--address`` and what a host on another machine needs; used by `connected`."""
    file = click.Path(exists=True, dir_okay=False)
    command = click.option(
        "--tls-ca", type=file, expose_value=False, callback=_noted, metavar="FILE",
        help="Use TLS; the authorities that may have signed the certificate of a host at tcp://HOST:PORT.",
    )(command)  # fmt: skip
    command = click.option(
        "--key-file", type=file, expose_value=False, callback=_noted, metavar="FILE", envvar=KEY_FILE_VARIABLE,
        help="The key of the host.",
    )(command)  # fmt: skip
    return address_option(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``."""
    return click.option("--json", "json_", is_flag=True, help="Print machine-readable results.")(command)


def connected(address: str | None) -> ArrayManager:
    """Connect to the host at an address, or to the standing host."""
    meta = click.get_current_context().meta
    key_file = meta.get("arrayhost.key_file")
    try:
        key = None if key_file is None else read_key(key_file)
        return connect(address, key, tls=meta.get("arrayhost.tls_ca"))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--address") from error
    except HostGoneError as error:
        where = address or default_address()
        raise Failure(
            f"no host at {where}: start one with 'arrayhost serve', or name another with --address"
        ) from error


class _Name(click.ParamType):  # type: ignore[type-arg]  # generic in new releases of click only
    """The name of an array, checked before anything is asked, completed from what the host has."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check a name."""
        try:
            return check_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """List the host's names that begin with what was typed."""
        from click.shell_completion import CompletionItem

        try:
            names = list(connect(ctx.params.get("address")))
        except (ArrayHostError, OSError, ValueError):
            return []  # pressing Tab must not fail where there is no host
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


NAME = _Name()
