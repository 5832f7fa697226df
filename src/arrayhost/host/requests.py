"""One client thread's requests: decoded, handed to the service, answered. A thread of the host for each."""

from __future__ import annotations

import contextlib
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
    ArrayHostError,
    DescriptorLimitError,
    HostGoneError,
    HostMemoryError,
    ProtocolError,
    WouldDeadlock,
)
from arrayhost.evaluation.operations import Operation
from arrayhost.host import reports
from arrayhost.host.clients import work_for
from arrayhost.host.inspection import named_record
from arrayhost.host.service import ident_of
from arrayhost.host.store import ObjectReferent, Operand
from arrayhost.sync.guards import caller_holds
from arrayhost.wire import failures
from arrayhost.wire.codec import Codec, Encoder
from arrayhost.wire.frames import Kind
from arrayhost.wire.streams import close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from arrayhost.core.handles import ObjectHandle
    from arrayhost.core.records import Creator
    from arrayhost.host.server import Server
    from arrayhost.wire.streams import Message, UnixStream

__all__ = ["CallConnection"]

_IDENTS = struct.Struct("<Q")
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
    stream : UnixStream
    holder : hashable
        The client's session, which everything granted here is leased to.
    client : Creator
        The process at the other end.

    Attributes
    ----------
    n_requests : int
        Received so far.
    """

    def __init__(self, server: Server, stream: UnixStream, holder: Hashable, client: Creator) -> None:
        self._server = server
        self._service = server.service
        self._store = server.service.store
        self._stream = stream
        self._holder = holder
        self._granted: list[int] = []
        self._sequence = -1
        self._abandoned: tuple[int, list[int]] = (-1, [])
        self._client = client
        self._ends_after_answer = False
        self.n_requests = 0
        self._answered = 0.0
        self._is_quick = False

    # -- the loop ------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Answer requests until the client hangs up, or the host ends."""
        work_for(self._client)
        try:
            while not self._ends_after_answer:
                message = self._receive()
                if message is None:
                    return
                self.n_requests += 1
                self._answer(message)
                self._answered = time.monotonic()
        except (HostGoneError, ProtocolError):
            return  # nobody is left to be told
        finally:
            self._stream.close()

    def _receive(self) -> Message | None:
        if self._is_quick and _patient.acquire(blocking=False):
            try:
                message = self._stream.receive(_PATIENCE)
            finally:
                _patient.release()
        else:
            message = self._stream.receive()
        self._is_quick = time.monotonic() - self._answered < 2 * _PATIENCE
        return message

    def hang_up(self) -> None:
        """Close this process's end."""
        self._stream.close()

    def end_after_answer(self) -> None:
        """Take no further request; one that is being carried out is still answered. From any thread."""
        self._ends_after_answer = True
        with contextlib.suppress(OSError):  # it has hung up already
            self._stream.socket.shutdown(socket.SHUT_RD)

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
        fds: list[int] = []
        reports.collect_warnings()
        try:
            kind: int
            try:
                if message.failure is not None:
                    raise message.failure
                result = _HANDLERS[message.kind](self, message, making)
                kind, body, attachments = self._encode_result(result, fds, map_again=message.kind == Kind.ATTACH)
            except Exception as error:
                warned = failures.describe_warnings(reports.collected_warnings())
                self._revoke()
                fds.clear()
                own_code = message.kind in _MAKING and not isinstance(error, ArrayHostError)
                kind, attachments = Kind.ERROR, []
                body = _described(error, warned, with_traceback=own_code)
            self._sequence = message.sequence
            try:
                self._stream.send(kind, message.sequence, body, attachments, fds)
            except (HostMemoryError, DescriptorLimitError) as error:
                # There was no room for the attachments; nothing has been sent yet.
                self._revoke()
                self._stream.send(Kind.ERROR, message.sequence, _described(error, [], with_traceback=False))
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
            if message.kind == Kind.SHUTDOWN:
                self._server.end()

    def _encode_result(self, result: Any, fds: list[int], *, map_again: bool) -> tuple[int, bytes, list[Any]]:
        warned = failures.describe_warnings(reports.collected_warnings())
        if result is None and not warned:
            return Kind.DONE, b"", []
        segments: list[int] = []
        encoder = Encoder(lambda value: self._reference(value, segments, fds, map_again), allow_pickle=True)
        value = encoder.encode([result, warned])
        prefix = bytes([len(segments)]) + b"".join(map(_IDENTS.pack, segments))
        return Kind.RESULT, prefix + value, encoder.attachments

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
        if new and len(segments) < _MOST_SEGMENTS:
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
        return Codec(resolve, message.attachments, allow_pickle=True).decode(message.body)

    @contextlib.contextmanager
    def _context(self, context: Any) -> Iterator[None]:
        """Evaluate under the caller's floating-point settings and knowing what the caller has locked."""
        if context is None:
            yield
            return
        caller_holds(dict(context.get("held", ())))
        try:
            with np.errstate(**context.get("errstate", {})):
                yield
        except ValueError as error:
            if not context.get("held") or "read-only" not in str(error):
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
        typeid, args, kwargs, context = self._decode(message, self._proxy)
        with self._context(context):
            buffers = (message.attachments, message.fds)
            return self._service.create(typeid, args, kwargs, making, buffers)

    def _run(self, message: Message, making: Hashable) -> Any:
        function, args, kwargs, context = self._decode(message, self._proxy)
        with self._context(context):
            return self._service.run(function, args, kwargs, making)

    def _call(self, message: Message, making: Hashable) -> Any:
        ident, name, args, kwargs, context = self._decode(message, self._proxy)
        with self._context(context):
            return self._service.call(ident, name, args, kwargs, making)

    def _evaluate(self, message: Message, making: Hashable) -> Any:
        kind, name, variant, target, args, kwargs, context = self._decode(message, self._operand)
        with self._context(context):
            return self._service.evaluate(Operation(kind, name, variant, target), args, kwargs)

    def _apply(self, message: Message, making: Hashable) -> Any:
        target, function, args, kwargs, timeout, context = self._decode(message, self._proxy)
        with self._context(context):
            operand = self._service.proxies.referent(target)
            if not isinstance(operand, Operand):
                raise ProtocolError("apply() on what is not hosted here")
            return self._service.apply(operand, function, args, kwargs, timeout)

    def _set_item(self, message: Message, making: Hashable) -> None:
        target, index, value, context = self._decode(message, self._operand)
        if context is None:
            self._service.set_item(target, index, value)
            return
        with self._context(context):
            self._service.set_item(target, index, value)

    def _attach(self, message: Message, making: Hashable) -> Any:
        return self._operand(message.body)

    def _claim(self, message: Message, making: Hashable) -> list[int]:
        """Lease what a forked child inherited; return what is gone already."""
        missing = []
        for ident in self._decode(message, self._operand):
            try:
                self._store.grant(ident, self._holder)
                self._granted.append(ident)
            except ReferenceError:
                missing.append(ident)
        return missing

    def _snapshot(self, message: Message, making: Hashable) -> Any:
        operand, context = self._decode(message, self._operand)
        with self._context(context):
            return operand.locked_copy()

    def _put_name(self, message: Message, making: Hashable) -> Any:
        name, value, overwrite, wanted = self._decode(message, self._operand)
        operand = self._service.put_name(
            name, value, making, (message.attachments, message.fds), overwrite=bool(overwrite)
        )
        return operand if wanted else None

    def _create_name(self, message: Message, making: Hashable) -> Any:
        name, shape, dtype, order, fill_value, exist_ok, context = self._decode(message, self._operand)
        with self._context(context):
            return self._service.create_name(name, shape, dtype, order, fill_value, making, exist_ok=bool(exist_ok))

    def _get_name(self, message: Message, making: Hashable) -> Any:
        return self._store.names.lease(check_name(self._decode(message, self._operand)), making)

    def _delete_name(self, message: Message, making: Hashable) -> None:
        self._store.names.delete(check_name(self._decode(message, self._operand)))

    def _list_names(self, message: Message, making: Hashable) -> list[str]:
        return self._store.names.listed()

    def _attributes(self, message: Message, making: Hashable) -> dict[str, Any]:
        operand, changes, removed, mode = self._decode(message, self._operand)
        return self._service.attributes(operand, changes, removed, str(mode))

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


def _described(error: Exception, warned: list[Any], *, with_traceback: bool) -> bytes:
    """The body of an answer that is an error, with the warnings that came before it."""
    described = failures.describe(error, with_traceback=with_traceback, allow_pickle=True)
    return Encoder(_no_reference, allow_pickle=True).encode([described, warned])


def _no_reference(value: Any) -> None:
    return None


def _unexpected(connection: CallConnection, message: Message, making: Hashable) -> Any:
    raise ProtocolError(f"a {Kind(message.kind).name} frame where a request was due")


# Requests that may make something or run users' code, and one whose result needs a lease before it can be answered.
_MAKING = frozenset(
    int(kind) for kind in (Kind.CREATE, Kind.RUN, Kind.CALL, Kind.APPLY, Kind.PUT_NAME, Kind.CREATE_NAME, Kind.GET_NAME)
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
    Kind.CREATE_NAME: CallConnection._create_name,
    Kind.ATTRIBUTES: CallConnection._attributes,
    Kind.RECORDS: CallConnection._records,
    Kind.STATISTICS: CallConnection._statistics,
    Kind.DESCRIBE: CallConnection._describe,
    Kind.SHUTDOWN: CallConnection._shutdown,
}
_HANDLERS = {int(kind): handler for kind, handler in _BY_KIND.items()}
