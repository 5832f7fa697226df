"""Addresses of clusters: ``dask://host:port``, ``dask://local?workers=4``, and the options behind the ``?``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from arrayhost.core.addresses import TCP_PREFIX, parse_tcp

__all__ = ["LOCAL", "ClusterAddress"]

PREFIX = "dask://"
LOCAL = "local"


@dataclass(frozen=True)
class ClusterAddress:
    """A cluster, and how it is to be used.

    Attributes
    ----------
    place : str
        ``host:port`` of the scheduler, or ``local`` for a trial cluster on this machine.
    workers, threads : int
        Of a trial cluster: its processes, and the threads of each.
    memory : str or None
        Of a trial cluster: the limit of each worker, such as ``"1GiB"``.
    directory : str or None
        Where named arrays are stored, as Zarr; all workers must see it.
    timeout : float
        Seconds that a call may take.
    idle : float
        Seconds without any worker after which a call gives up.
    chunk : str
        Size of the chunks that arrays are cut into by default.
    progress : bool
        Show a bar for computations of more than a second.

    Raises
    ------
    ValueError
        The address has another form.
    """

    place: str
    workers: int = 2
    threads: int = 1
    memory: str | None = None
    directory: str | None = None
    timeout: float = 600.0
    idle: float = 30.0
    chunk: str = "32MiB"
    progress: bool = False

    @classmethod
    def parse(cls, address: str) -> ClusterAddress:
        """Take an address apart."""
        place, _, query = address.removeprefix(PREFIX).partition("?")
        if not address.startswith(PREFIX) or not place:
            raise ValueError(f"address {address!r}: expected 'dask://HOST:PORT' or 'dask://local?workers=N'")
        if place != LOCAL:
            parse_tcp(TCP_PREFIX + place)
        kinds = {field.name: field.type for field in fields(cls) if field.name != "place"}
        given: dict[str, Any] = {}
        for name, text in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
            if name not in kinds:
                raise ValueError(f"address {address!r}: no option {name!r}; there are {', '.join(kinds)}")
            given[name] = _converted(address, name, text, str(kinds[name]))
        return cls(place, **given)

    def at(self, place: str) -> ClusterAddress:
        """The same use of the cluster at another place."""
        return replace(self, place=place)

    def __str__(self) -> str:
        """As an address that `parse` takes, with the options that are not the default."""
        options = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "place" and getattr(self, field.name) != field.default
        }
        if self.place != LOCAL:
            options = {name: value for name, value in options.items() if name not in ("workers", "threads", "memory")}
        if "progress" in options:
            options["progress"] = int(self.progress)
        return PREFIX + self.place + (f"?{urlencode(options)}" if options else "")

    def scheduler(self, *, encrypted: bool) -> str:
        """The scheduler's address as Dask writes it."""
        return f"{'tls' if encrypted else 'tcp'}://{self.place}"


def _converted(address: str, name: str, text: str, kind: str) -> Any:
    try:
        if kind == "bool":
            return {"1": True, "0": False, "true": True, "false": False}[text.lower()]
        if kind in ("int", "float"):
            value = int(text) if kind == "int" else float(text)
            if not value > 0:
                raise ValueError
            return value
    except (KeyError, ValueError):
        raise ValueError(f"address {address!r}: {name}={text!r}") from None
    return text
