"""One client thread's requests: decoded, handed to the service, answered. A thread of the host for each."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.core.names import check_name
from arrayhost.core.records import to_plain
from arrayhost.errors import (
    ArgumentEncodingError,
    ArrayHostError,
    DescriptorLimitError,
    HostGoneError,
    HostMemoryError,
    ProtocolError,
    ReadOnlyError,
    RemoteError,
    WouldDeadlock,
)
from arrayhost.evaluation.operations import Operation
from arrayhost.evaluation.permitted import (
    check_call_reads_only,
    check_evaluation_reads_only,
    check_reads_only,
    check_untrusted,
    refuse_code,
)
from arrayhost.host import reports
from arrayhost.host.clients import work_for
from arrayhost.host.inspection import named_record
from arrayhost.host.locks import HeldLocks
from arrayhost.host.service import ident_of
from arrayhost.host.store import ObjectReferent, Operand
from arrayhost.host.streaming import LiveCopy, live_copy
from arrayhost.memory.access import to_send
from arrayhost.memory.budget import claimed
from arrayhost.memory.ceiling import explained
from arrayhost.sync.filelocks import EXCLUSIVE
from arrayhost.sync.guards import caller_holds
from arrayhost.wire import failures
from arrayhost.wire.codec import MAX_PARTS, Codec, Encoder, decoded_bytes
from arrayhost.wire.frames import Kind
from arrayhost.wire.streams import StreamIdle, close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from arrayhost.core.handles import ObjectHandle
    from arrayhost.host.server import Server
    from arrayhost.host.sessions import ClientSession
    from arrayhost.wire.network import NetworkStream
    from arrayhost.wire.streams import Message, UnixStream

__all__ = ["CallConnection"]

log = logging.getLogger(__name__)

_IDENTS = struct.Struct("<Q")
_MAX_ERROR_TEXT = 100_000
_CONDITIONS = frozenset(["divide", "over", "under", "invalid"])
_REACTIONS = ("ignore", "warn", "raise")
# Kind, body, attachments and descriptors of a reply.
_Answer = tuple[int, bytes, list[Any], list[int]]
# A client that asked again so soon after its last answer is likely to do so once more: its thread then looks for the
# next request for as long before it sleeps. One thread at a time: more would only take each other's processor.
_PATIENCE = 50e-6
_patient = threading.Lock()
# Sent along with one result; for what is beyond, the client asks.
_MOST_SEGMENTS = 32


class CallConnection:
    """The host's end of one client thread's connection.

    Parameters
    ----------
    server : Server
    stream : UnixStream or NetworkStream
    session : ClientSession
        Whose everything granted here is.
    number : int
        Tells the session's connections apart.

    Attributes
    ----------
    n_requests : int
        Received so far.
    is_busy : bool
        One is being carried out.
    """

    def __init__(self, server: Server, stream: UnixStream | NetworkStream, session: ClientSession, number: int) -> None:
        self.stream = stream
        self.session = session
        self.number = number
        self._server = server
        self._service = server.service
        self._store = server.service.store
        self._holder: Hashable = session.ident
        self._trusted = stream.trusted
        self._granted: list[int] = []
        self._sequence = -1
        self._abandoned: tuple[int, list[int]] = (-1, [])
        self._ends_after_answer = False
        self._locks = HeldLocks()
        self.n_requests = 0
        self._answered = 0.0
        self._is_quick = False
        self.is_busy = False

    # -- the loop ------------------------------------------------------------------------------------------------

    def serve(self) -> bool:
        """Answer requests until the client hangs up or has nothing to ask, or the host ends.

        Returns
        -------
        bool
            True if it is merely idle: the connection stays open, and is to be served again when something comes.
        """
        work_for(self.session.client)
        try:
            while not self._ends_after_answer:
                message = self._receive()
                if message is None:
                    return False
                self.n_requests += 1
                self.is_busy = True
                self._answer(message)
                self.is_busy = False
                self._answered = time.monotonic()
        except StreamIdle:
            return not self._ends_after_answer
        except (HostGoneError, HostMemoryError, ProtocolError) as error:
            log.debug("a client's connection ended: %s", error)  # nobody is left to be told
        finally:
            self.is_busy = False
            # Only a client over the network has any, and its connections are never idle.
            self._locks.end()
        return False

    def _receive(self) -> Message | None:
        if self._is_quick and _patient.acquire(blocking=False):
            try:
                message = self.stream.receive(_PATIENCE)
            finally:
                _patient.release()
        else:
            message = self.stream.receive()
        self._is_quick = time.monotonic() - self._answered < 2 * _PATIENCE
        return message

    def hang_up(self) -> None:
        """Close this process's end."""
        self.stream.close()

    def end_after_answer(self) -> None:
        """Take no further request; one that is being carried out is still answered. From any thread."""
        self._ends_after_answer = True
        with contextlib.suppress(OSError):  # it has hung up already
            socket.socket.shutdown(self.stream.socket, socket.SHUT_RD)

    def abandon(self, sequence: int, counted: list[int]) -> None:
        """Take back what the answer to an interrupted request granted, or will grant, and its client did not count."""
        self._abandoned = (sequence, list(counted))
        if self._sequence == sequence:
            self._revoke(counted)

    def _revoke(self, counted: Iterable[int] = ()) -> None:
        granted, self._granted = self._granted, []
        kept = Counter(counted)
        for ident in granted:
            if kept[ident]:
                kept[ident] -= 1
            else:
                self._store.release(ident, self._holder)

    def _answer(self, message: Message) -> None:
        self._granted = []
        # Whatever a request makes is held for the request itself until the reply is on its way.
        making = object()
        reports.collect_warnings()
        try:
            answer = self._result(message, making)
            self._sequence = message.sequence
            try:
                self._send(message.sequence, answer)
            except (HostMemoryError, DescriptorLimitError) as error:  # met before anything was sent
                self._revoke()
                self._send(message.sequence, self._encode_error(error, [], with_traceback=False))
            if self._abandoned[0] == message.sequence:
                self._revoke(self._abandoned[1])
        except BaseException:
            self._revoke()
            raise
        finally:
            if message.fds:
                close_all(message.fds)
            if message.kind in _MAKING:
                self._store.drop_holder(making)
                self._service.flush_released()
            if message.kind == Kind.SHUTDOWN and not self.session.read_only:
                self._server.end()

    def _result(self, message: Message, making: Hashable) -> _Answer:
        """Do what a request asks for and encode what comes of it, be it an error."""
        try:
            if message.failure is not None:
                raise message.failure
            if self.session.read_only:
                check_reads_only(message.kind)
            if message.kind in _UNFORESEEN:
                self._server.bound_memory()
            result = _HANDLERS[message.kind](self, message, making)
            if isinstance(result, LiveCopy):
                result = self._stream_live(message, result)
            return self._encode_result(result, map_again=message.kind == Kind.ATTACH)
        except Exception as error:  # whatever the request or a user's code raised is the caller's to see
            if isinstance(error, MemoryError):
                error = explained(error)
            warned = failures.describe_warnings(reports.collected_warnings())
            self._revoke()
            own_code = message.kind in _MAKING and not isinstance(error, ArrayHostError)
            return self._encode_error(error, warned, with_traceback=own_code)

    def _stream_live(self, message: Message, result: LiveCopy) -> Any:
        """Send an array's memory as it is; return None if it held still, else what is to be sent in its place."""
        encoder = Encoder(_no_reference, allow_pickle=False)
        body = b"\0" + encoder.encode([result.values, []])
        try:
            self.stream.send(Kind.STREAMED, message.sequence, body, encoder.attachments)
        except HostGoneError:
            self.stream.cut()  # whatever else was sent would be taken for the array's
            raise
        return result.confirmed()

    def _send(self, sequence: int, answer: _Answer) -> None:
        kind, body, attachments, fds = answer
        if not fds:
            self.stream.send(kind, sequence, body, attachments)
            return
        with to_send(fds, read_only=self.session.read_only) as sendable:
            self.stream.send(kind, sequence, body, attachments, sendable)

    def _encode_error(self, error: Exception, warned: list[list[str]], *, with_traceback: bool) -> _Answer:
        trusted = self._trusted
        description = failures.describe(error, with_traceback=with_traceback, allow_pickle=trusted)
        try:
            body = Encoder(_no_reference, allow_pickle=trusted).encode([description, warned])
        except ArgumentEncodingError:  # an error as large as a message may be
            short = failures.describe(
                RemoteError(type(error).__qualname__, str(error)[:_MAX_ERROR_TEXT]), with_traceback=False,
                allow_pickle=False,
            )  # fmt: skip
            body = Encoder(_no_reference, allow_pickle=False).encode([short, []])
        return Kind.ERROR, body, [], []

    def _encode_result(self, result: Any, *, map_again: bool) -> _Answer:
        warned = failures.describe_warnings(reports.collected_warnings())
        if result is None and not warned:
            return Kind.DONE, b"", [], []
        segments: list[int] = []
        fds: list[int] = []
        encoder = Encoder(lambda value: self._reference(value, segments, fds, map_again), allow_pickle=self._trusted)
        value = encoder.encode([result, warned])
        prefix = bytes([len(segments)]) + b"".join(map(_IDENTS.pack, segments))
        return Kind.RESULT, prefix + value, encoder.attachments, fds

    def _reference(self, value: Any, segments: list[int], fds: list[int], map_again: bool) -> Any:
        """Let hosted things travel as handles, each with a lease, and with its segment if the client lacks it."""
        referent = value if isinstance(value, (Operand, ObjectReferent)) else self._service.proxies.referent(value)
        if referent is None:
            return None
        ident = ident_of(referent)
        if isinstance(referent, ObjectReferent):
            self._store.grant(ident, self._holder)
            self._granted.append(ident)
            return referent.handle
        segment = referent.referent.place.segment
        # Who holds an array of the segment has it mapped. Where that has just ended here or there, the client asks.
        new = map_again or not self._store.leases.has_any(segment.ident, self._holder)
        self._store.grant(ident, self._holder)
        self._granted.append(ident)
        if new and self.stream.passes_files and len(segments) < _MOST_SEGMENTS:
            segments.append(segment.ident)
            fds.append(segment.fd)
        return referent.handle()

    # -- decoding ------------------------------------------------------------------------------------------------

    def _operand(self, packed: bytes | ObjectHandle) -> Any:
        """Resolve a handle to what operations work on."""
        if not isinstance(packed, bytes):
            return self._service.proxies.proxy(self._store.find_object(packed.ident))
        return self._store.find_packed(packed)

    def _proxy(self, packed: bytes | ObjectHandle) -> Any:
        """Resolve a handle to what code in the host is given."""
        if isinstance(packed, bytes):
            return self._service.proxies.proxy(self._store.find_packed(packed))
        return self._service.proxies.proxy(self._store.find_object(packed.ident))

    def _decode(self, message: Message, resolve: Callable[[Any], Any]) -> Any:
        if self._trusted:
            return Codec(resolve, message.attachments, allow_pickle=True).decode(message.body)
        with claimed(decoded_bytes(len(message.body))):
            codec = Codec(resolve, message.attachments, allow_pickle=False, max_parts=MAX_PARTS)
            return codec.decode(message.body)

    def _parts(self, message: Message, resolve: Callable[[Any], Any], *types: type | tuple[type, ...]) -> list[Any]:
        """Decode a request of several parts.

        Raises
        ------
        ProtocolError
            They are not as many, or not of these types.
        """
        parts = self._decode(message, resolve)
        if type(parts) is not list or len(parts) != len(types) or not all(map(isinstance, parts, types)):
            raise _malformed(message)
        return parts

    @contextlib.contextmanager
    def _context(self, context: Any) -> Iterator[None]:
        """Evaluate under the caller's floating-point settings and knowing what the caller has locked."""
        if context is None:
            yield
            return
        held, settings = _checked_context(context)
        caller_holds(held)
        try:
            with np.errstate(**settings):
                yield
        except ValueError as error:
            if not held or "read-only" not in str(error):
                raise
            # What the caller holds has come by value and read-only, since writing to the array means waiting for it.
            raise WouldDeadlock(
                "this call writes to an array on which its caller holds a section, and would have to wait for the "
                "caller: write inside the section itself, or end it before the call"
            ) from error
        finally:
            caller_holds({})

    # -- one method a kind of request ----------------------------------------------------------------------------

    def _create(self, message: Message, making: Hashable) -> Any:
        typeid, args, kwargs, context = self._parts(message, self._proxy, str, list, dict, object)
        with self._context(context):
            buffers = (message.attachments, message.fds)
            return self._service.create(typeid, args, kwargs, making, buffers)

    def _run(self, message: Message, making: Hashable) -> Any:
        if not self._trusted:
            refuse_code()
        function, args, kwargs, context = self._parts(message, self._proxy, object, list, dict, object)
        with self._context(context):
            return self._service.run(function, args, kwargs, making)

    def _call(self, message: Message, making: Hashable) -> Any:
        ident, name, args, kwargs, context = self._parts(message, self._proxy, int, str, list, dict, object)
        if self.session.read_only:
            check_call_reads_only(name)
        with self._context(context):
            return self._service.call(ident, name, args, kwargs, making)

    def _evaluate(self, message: Message, making: Hashable) -> Any:
        kind, name, variant, target, args, kwargs, context = self._parts(
            message, self._operand, str, str, str, object, list, dict, object
        )
        operation = Operation(kind, name, variant, target)
        if self.session.read_only:
            check_evaluation_reads_only(operation, args, kwargs, _is_operand)
        if not self._trusted:
            check_untrusted(operation, args, _is_operand)
        with self._context(context):
            live = None if self.stream.passes_files else live_copy(operation, args)
            return self._service.evaluate(operation, args, kwargs) if live is None else live

    def _apply(self, message: Message, making: Hashable) -> Any:
        if not self._trusted:
            refuse_code()
        target, function, args, kwargs, timeout, context = self._parts(
            message, self._proxy, object, object, list, dict, (int, float), object
        )
        with self._context(context):
            operand = self._service.proxies.referent(target)
            if not isinstance(operand, Operand):
                raise ProtocolError("apply() on what is not hosted here")
            return self._service.apply(operand, function, args, kwargs, timeout)

    def _set_item(self, message: Message, making: Hashable) -> None:
        try:
            target, index, value, context = self._decode(message, self._operand)
        except (TypeError, ValueError):
            raise _malformed(message) from None
        if type(target) is not Operand:
            raise _malformed(message)
        if context is None:
            self._service.set_item(target, index, value)
            return
        with self._context(context):
            self._service.set_item(target, index, value)

    def _attach(self, message: Message, making: Hashable) -> Any:
        return self._operand(message.body)

    def _claim(self, message: Message, making: Hashable) -> list[int]:
        """Lease what a forked child inherited; return what is gone already."""
        idents = self._decode(message, self._operand)
        if type(idents) is not list or not all(type(ident) is int for ident in idents):
            raise _malformed(message)
        missing = []
        for ident in idents:
            try:
                self._store.grant(ident, self._holder)
                self._granted.append(ident)
            except ReferenceError:
                missing.append(ident)
        return missing

    def _snapshot(self, message: Message, making: Hashable) -> Any:
        views, context = self._parts(message, self._operand, list, object)
        if not views or not all(type(view) is Operand and view.referent is views[0].referent for view in views):
            raise _malformed(message)
        with self._context(context):
            return views[0].locked_copies(views)

    def _put_name(self, message: Message, making: Hashable) -> Any:
        name, value, overwrite, wanted = self._parts(message, self._operand, str, object, bool, bool)
        operand = self._service.put_name(name, value, making, (message.attachments, message.fds), overwrite=overwrite)
        return operand if wanted else None

    def _create_name(self, message: Message, making: Hashable) -> Any:
        name, shape, dtype, order, fill_value, exist_ok, context = self._parts(
            message, self._operand, str, object, object, str, object, bool, object
        )
        with self._context(context):
            return self._service.create_name(name, shape, dtype, order, fill_value, making, exist_ok=exist_ok)

    def _get_name(self, message: Message, making: Hashable) -> Any:
        return self._store.names.lease(check_name(self._decode(message, self._operand)), making)

    def _delete_name(self, message: Message, making: Hashable) -> None:
        self._service.delete_name(check_name(self._decode(message, self._operand)))

    def _flush(self, message: Message, making: Hashable) -> None:
        self._service.flush()

    def _list_names(self, message: Message, making: Hashable) -> list[str]:
        return self._store.names.listed()

    def _lock(self, message: Message, making: Hashable) -> list[Any]:
        operand, mode, timeout = self._parts(message, self._operand, Operand, int, (int, float))
        if self.session.read_only and mode == EXCLUSIVE:
            raise ReadOnlyError
        return self._locks.take(operand.referent, mode, timeout)

    def _fetch(self, message: Message, making: Hashable) -> Any:
        return self._locks.values(self._decode(message, self._operand))

    def _unlock(self, message: Message, making: Hashable) -> None:
        ident, values, mended = self._parts(message, self._operand, int, object, bool)
        self._locks.give_back(ident, values, mended=mended)

    def _attributes(self, message: Message, making: Hashable) -> dict[str, Any]:
        operand, changes, removed, mode = self._parts(message, self._operand, Operand, dict, list, str)
        if self.session.read_only and mode != "read":
            raise ReadOnlyError("attributes cannot be changed")
        return self._service.attributes(operand, changes, removed, mode)

    def _records(self, message: Message, making: Hashable) -> dict[str, Any]:
        name = self._decode(message, self._operand)
        if name is not None:
            return {"array": to_plain(named_record(self._store, check_name(name), self._server.client_of))}
        return to_plain(self._server.record())

    def _statistics(self, message: Message, making: Hashable) -> dict[str, Any]:
        return to_plain(self._server.statistics())

    def _describe(self, message: Message, making: Hashable) -> str:
        return self._store.describe_objects()

    def _shutdown(self, message: Message, making: Hashable) -> None:
        """Nothing to do before the answer is on its way."""


def _malformed(message: Message) -> ProtocolError:
    return ProtocolError(f"a malformed {Kind(message.kind).name} request")


def _checked_context(context: Any) -> tuple[dict[int, int], dict[str, Any]]:
    """Take apart what a request says of its caller: the slots it holds and how, its floating-point settings.

    Raises
    ------
    ProtocolError
    """
    try:
        held, settings = dict(context["held"]), dict(context["errstate"])
        known = settings.keys() <= _CONDITIONS and all(how in _REACTIONS for how in settings.values())
    except (TypeError, ValueError, KeyError):
        known = False
    if not known or not all(type(number) is int for pair in held.items() for number in pair):
        raise ProtocolError("a malformed context of a request")
    return held, settings


def _is_operand(value: Any) -> bool:
    return isinstance(value, Operand)


def _no_reference(value: Any) -> None:
    return None


def _unexpected(connection: CallConnection, message: Message, making: Hashable) -> Any:
    raise ProtocolError(f"a {Kind(message.kind).name} frame where a request was due")


# Requests that may make something or run users' code, and one whose result needs a lease before it can be answered.
_MAKING = frozenset(
    int(kind) for kind in (Kind.CREATE, Kind.RUN, Kind.CALL, Kind.APPLY, Kind.PUT_NAME, Kind.CREATE_NAME, Kind.GET_NAME)
)
# Requests that run NumPy's or users' code, which takes what memory it likes.
_UNFORESEEN = frozenset(
    int(kind) for kind in (Kind.CREATE, Kind.RUN, Kind.CALL, Kind.APPLY, Kind.EVALUATE, Kind.PUT_NAME)
)
_BY_KIND: dict[Kind, Callable[[CallConnection, Message, Hashable], Any]] = {
    **dict.fromkeys(Kind, _unexpected),
    Kind.CREATE: CallConnection._create,
    Kind.RUN: CallConnection._run,
    Kind.CALL: CallConnection._call,
    Kind.EVALUATE: CallConnection._evaluate,
    Kind.SET_ITEM: CallConnection._set_item,
    Kind.APPLY: CallConnection._apply,
    Kind.ATTACH: CallConnection._attach,
    Kind.CLAIM: CallConnection._claim,
    Kind.SNAPSHOT: CallConnection._snapshot,
    Kind.PUT_NAME: CallConnection._put_name,
    Kind.GET_NAME: CallConnection._get_name,
    Kind.DELETE_NAME: CallConnection._delete_name,
    Kind.LIST_NAMES: CallConnection._list_names,
    Kind.FLUSH: CallConnection._flush,
    Kind.CREATE_NAME: CallConnection._create_name,
    Kind.ATTRIBUTES: CallConnection._attributes,
    Kind.RECORDS: CallConnection._records,
    Kind.STATISTICS: CallConnection._statistics,
    Kind.DESCRIBE: CallConnection._describe,
    Kind.LOCK: CallConnection._lock,
    Kind.FETCH: CallConnection._fetch,
    Kind.UNLOCK: CallConnection._unlock,
    Kind.SHUTDOWN: CallConnection._shutdown,
}
_HANDLERS = {int(kind): handler for kind, handler in _BY_KIND.items()}
