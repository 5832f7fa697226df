"""Keys: how the two ends of a connection show each other that they have the same key, without showing the key.

Over the network both ends prove it before anything else is read. Each proof covers a random number of either end and
says which end it comes from: one that was recorded fits no later connection, and one that is sent back to its maker is
not the one that is due. No socket here.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from arrayhost.errors import NotAuthorizedError, ProtocolError

__all__ = ["CLIENT", "GREETING_BYTES", "HOST", "PROOF_BYTES", "Handshake", "check_key", "prove"]

CLIENT, HOST = b"client", b"host"
_MAGIC = b"arrayhost/1\n"
_NONCE_BYTES = 32
GREETING_BYTES = len(_MAGIC) + _NONCE_BYTES
PROOF_BYTES = 32
# How a TLS record begins: a handshake, or an alert.
_TLS_FIRST_BYTES = (b"\x16\x03", b"\x15\x03")


def prove(authkey: bytes, session_ident: bytes) -> bytes:
    """What a client on a Unix socket shows to prove that it knows a key."""
    return hmac.digest(bytes(authkey), b"arrayhost session " + session_ident, "sha256")


def check_key(authkey: bytes | None) -> bytes:
    """Return a key that is fit for the network.

    Raises
    ------
    NotAuthorizedError
        There is none.
    """
    if not authkey:
        raise NotAuthorizedError("over TCP both ends need the host's key: pass authkey=, some 32 random bytes")
    return bytes(authkey)


class Handshake:
    """One end's part of the mutual challenge.

    Parameters
    ----------
    role : bytes
        `CLIENT` or `HOST`.
    authkey : bytes
    """

    def __init__(self, role: bytes, authkey: bytes) -> None:
        self._role = role
        # HMAC itself takes a key and the same with zeros behind it for one.
        self._key = hashlib.sha256(authkey).digest()
        self._nonces = {role: os.urandom(_NONCE_BYTES)}

    def greeting(self) -> bytes:
        """What to send first."""
        return _MAGIC + self._nonces[self._role]

    def hear_greeting(self, data: bytes) -> None:
        """Take in the other end's greeting.

        Raises
        ------
        ProtocolError
            It is none.
        """
        if data[:2] in _TLS_FIRST_BYTES:
            raise ProtocolError("the other end speaks TLS on this connection and this one does not")
        if len(data) != GREETING_BYTES or not data.startswith(_MAGIC):
            raise ProtocolError(f"the other end does not speak this protocol: it sent {data[:16]!r}")
        self._nonces[HOST if self._role == CLIENT else CLIENT] = data[len(_MAGIC) :]

    def proof(self) -> bytes:
        """What to send to prove the key; the greetings come first."""
        return self._proof_of(self._role)

    def check_proof(self, data: bytes) -> None:
        """Check the other end's proof.

        Raises
        ------
        NotAuthorizedError
            It was not made with this key, for this connection, by the other end.
        """
        expected = self._proof_of(HOST if self._role == CLIENT else CLIENT)
        if not hmac.compare_digest(expected, data):
            raise NotAuthorizedError("the two ends have different keys; give connect() the authkey of the host")

    def _proof_of(self, role: bytes) -> bytes:
        text = b"arrayhost network " + role + b"\0" + self._nonces[CLIENT] + self._nonces[HOST]
        return hmac.digest(self._key, text, "sha256")
