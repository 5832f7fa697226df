"""Local addresses: Unix sockets that only this user's processes reach, and who is at the other end of one.

A socket in the file system lies in a folder that nobody else may write to, and has mode 0600; one in the abstract
name space has no file and no mode, so there the kernel's word on the peer's user is all there is. That word is asked
for on both sides, always: a host does not serve another user, and a client does not talk to another user's host.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING

from arrayhost.errors import HostGoneError, NotAuthorizedError
from arrayhost.memory.descriptors import descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LOCAL_PREFIX", "UnixListener", "bind_unix", "check_peer", "connect_unix", "peer_credentials",
           "remove_socket", "socket_name"]  # fmt: skip

LOCAL_PREFIX = "unix:"
_CREDENTIALS = struct.Struct("3i")
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
# Starting a host takes a few milliseconds under the folder's lock. In a shared folder any user may hold that lock, so
# nobody waits for it without end.
_LOCK_SECONDS = 1.0


def socket_name(address: str) -> str:
    """Turn ``unix:/path`` or ``unix:@name`` into what the socket calls take.

    Raises
    ------
    ValueError
        `address` is neither.
    """
    name = address.removeprefix(LOCAL_PREFIX)
    if name.startswith("@") and len(name) > 1:
        return "\0" + name[1:]
    if name.startswith("/") and "\0" not in name:
        return name
    raise ValueError(f"address {address!r}: expected 'unix:/absolute/path' or 'unix:@name'")


# -- listening ----------------------------------------------------------------------------------------------------


class UnixListener:
    """A Unix socket on which a host listens.

    Parameters
    ----------
    address : str
        See `bind_unix`, also for the errors.
    trusted : bool
        Whether pickles are read from those who connect.
    """

    def __init__(self, address: str, *, trusted: bool) -> None:
        self.address = address
        self.trusted = trusted
        self._socket = bind_unix(address)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._socket.fileno()

    def accept(self) -> socket.socket:
        """Accept one peer without waiting.

        Raises
        ------
        NotAuthorizedError
            It runs as another user; it has been closed.
        OSError
        """
        sock, _ = self._socket.accept()
        try:
            check_peer(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def hang_up(self) -> None:
        """Close this process's copy of the socket; the file is the process's that it was forked from."""
        self._socket.close()

    def close(self) -> None:
        """Stop listening and remove the socket's file."""
        name = socket_name(self.address)
        if name[0] != "\0":
            # Before the socket closes: afterwards another host may have put its own here.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        self._socket.close()


def bind_unix(address: str, backlog: int = 512) -> socket.socket:
    """Listen on a Unix socket that only this user may connect to.

    Parameters
    ----------
    address : str
        The folder of a path is made, with mode 0700, if it does not exist. The socket of a host that has died is
        replaced.
    backlog : int
        Peers that the kernel lets wait to be accepted.

    Raises
    ------
    NotAuthorizedError
        Another user could put something else in the socket's place, or has done so.
    OSError
        The address is taken.
    """
    name = socket_name(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if name[0] == "\0":
            sock.bind(name)
            sock.listen(backlog)
        else:
            os.makedirs(os.path.dirname(name), mode=0o700, exist_ok=True)
            with _private_folder(os.path.dirname(name)):
                _remove_stale(name)
                # The file's mode is set before anybody can connect: connecting is possible only after listen().
                sock.bind(name)
                os.chmod(name, 0o600)
                sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise type(error)(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def remove_socket(address: str) -> None:
    """Remove what a host that was killed left of its address, unless another host listens there by now."""
    name = socket_name(address)
    if name[0] != "\0":
        with contextlib.suppress(OSError, NotAuthorizedError), _private_folder(os.path.dirname(name)):
            _remove_stale(name)


@contextlib.contextmanager
def _private_folder(path: str) -> Iterator[None]:
    """Make sure that nobody else can put something into a folder; keep our own other hosts out meanwhile.

    Without the lock, two hosts that start at one address would both find the dead one's socket, and the second would
    remove what the first has just made.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        if about.st_uid not in (os.geteuid(), 0):
            raise NotAuthorizedError(
                f"folder {path} belongs to user {about.st_uid}, who could replace the host's socket; use a folder of "
                "your own"
            )
        if about.st_mode & _OTHERS_MAY_WRITE and not about.st_mode & stat.S_ISVTX:
            raise NotAuthorizedError(
                f"folder {path} may be written to by other users (mode {stat.S_IMODE(about.st_mode):04o}), who could "
                f"replace the host's socket; use a folder of your own, or chmod 700 {path}"
            )
        _lock_briefly(fd)
        yield
    finally:
        os.close(fd)


def _lock_briefly(fd: int) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.005)


def _remove_stale(name: str) -> None:
    """Remove the socket that a dead host of this user left; leave everything else alone.

    Raises
    ------
    NotAuthorizedError
        Somebody else has put something there, or it is a link to another place.
    """
    try:
        about = os.lstat(name)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(about.st_mode):
        raise NotAuthorizedError(f"{name} is a symbolic link: a host listens only on a path of its own")
    if about.st_uid != os.geteuid():
        raise NotAuthorizedError(f"{name} belongs to user {about.st_uid}; choose another path for the host")
    if stat.S_ISSOCK(about.st_mode) and not _is_served(name):
        os.unlink(name)


def _is_served(name: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except BlockingIOError:  # its queue is full: somebody is there
            return True
        except OSError as error:
            return error.errno != errno.ECONNREFUSED
    return True


# -- connecting ---------------------------------------------------------------------------------------------------


class ClientSocket(socket.socket):
    """A socket that closes when it is dropped.

    Those in use when the interpreter ends are dropped then. To close them at an earlier stage of its end would take
    them from finalizers and threads that are still to run; not to close them is a ResourceWarning.
    """

    # The stubs leave out what every close() of a socket ends in.
    def __del__(self, close: Callable[[socket.socket], None] = socket.socket._real_close) -> None:  # type: ignore[attr-defined]
        # Module globals may be gone by now; so may, if the kernel refused a descriptor, what close() looks at.
        close(self)


def connect_unix(address: str, timeout: float) -> socket.socket:
    """Connect to a host's Unix socket and check that the host belongs to this user.

    Raises
    ------
    HostGoneError
        Nobody listens there.
    NotAuthorizedError
        Another user does.
    """
    with descriptor_limit("a connection to a host"):
        sock = ClientSocket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        sock.connect(socket_name(address))
        sock.settimeout(None)
        check_peer(sock)
    except OSError as error:
        sock.close()
        raise HostGoneError(
            f"no host at {address}: {error.strerror or error}; start it, or check the address"
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """Process and user id of the other side, as the kernel knows them."""
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


def check_peer(sock: socket.socket) -> int:
    """Return the other side's process id.

    Raises
    ------
    NotAuthorizedError
        It runs as another user.
    """
    pid, uid = peer_credentials(sock)
    if uid != os.geteuid():
        raise NotAuthorizedError(f"process {pid} belongs to user {uid}, this one to user {os.geteuid()}")
    return pid
