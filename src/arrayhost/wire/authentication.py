"""Keys: how a client shows that it has the host's, without showing the key."""

from __future__ import annotations

import hmac

__all__ = ["prove"]


def prove(authkey: bytes, session_ident: bytes) -> bytes:
    """What a client shows to prove that it knows a key."""
    return hmac.digest(bytes(authkey), b"arrayhost session " + session_ident, "sha256")
