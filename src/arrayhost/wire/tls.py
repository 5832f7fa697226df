"""TLS from certificates in files, by the standard library: contexts for the two ends of a TCP connection."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

__all__ = ["client_context", "host_context"]


def host_context(tls: Any) -> ssl.SSLContext | None:
    """Make a host's context.

    Parameters
    ----------
    tls : None, SSLContext, or sequence of path
        The host's certificate (with its chain) and its private key; a third one names the authorities of the clients'
        certificates, which are then required.

    Raises
    ------
    TypeError, OSError, ssl.SSLError
    """
    if tls is None or isinstance(tls, ssl.SSLContext):
        return tls
    certificate, key, *authorities = _paths(tls, "tls=(certificate, key) or (certificate, key, clients' CA)", (2, 3))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if authorities:
        context.load_verify_locations(authorities[0])
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Any) -> ssl.SSLContext | None:
    """Make a client's context.

    Parameters
    ----------
    tls : None, bool, SSLContext, path, or sequence of path
        None or False: no TLS. True: the system's authorities. A path: the file of the authorities that may have signed
        the host's certificate. Three paths: that, and the client's own certificate and key.

    Raises
    ------
    TypeError, OSError, ssl.SSLError
    """
    if tls is None or tls is False:
        return None
    if isinstance(tls, ssl.SSLContext):
        return tls
    if tls is True:
        return ssl.create_default_context()
    given = [tls] if isinstance(tls, (str, Path)) else tls
    authorities, *own = _paths(given, "tls=True, a CA file, or (CA, certificate, key)", (1, 3))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(authorities)
    if own:
        context.load_cert_chain(*own)
    return context


def _paths(tls: Any, expected: str, counts: tuple[int, ...]) -> list[str]:
    try:
        paths = [str(Path(part)) for part in tls]
    except TypeError as error:
        raise TypeError(f"expected {expected}, not {tls!r}") from error
    if len(paths) not in counts:
        raise TypeError(f"expected {expected}, not {tls!r}")
    return paths
