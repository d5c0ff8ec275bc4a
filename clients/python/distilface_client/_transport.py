"""Sends calls for the blocking client.

It is made from _aio_transport.py by generate_blocking.py, not edited by hand.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from . import _methods as m
from ._concurrency import Channels, Documents, next_answer, sleep, source
from ._generated import documents_pb2
from ._ingest import WINDOW, Batches
from .errors import Unavailable, from_rpc
from .types import WriteResult

if TYPE_CHECKING:
    from typing_extensions import Self


class Transport:
    """Holds a connection to a server, and knows how calls travel but not which there are."""

    def __init__(
        self,
        address: str = m.DEFAULT_ADDRESS,
        *,
        timeout: float = m.DEFAULT_TIMEOUT,
        retry: m.Retry | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        message_bytes_max: int = m.DEFAULT_MESSAGE_BYTES_MAX,
    ) -> None:
        where = m.Address.parse(address)
        options = m.channel_options(where, message_bytes_max)
        self._channels = Channels(where, m.credentials_for(where, credentials), options)
        self._address = where.target
        self._timeout = timeout
        self._retry = retry or m.Retry()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls that are running fail."""
        self._channels.close()

    def _call(self, method: m.Method[Any, m.R], request: Any, timeout: float | None) -> m.R:
        stub = getattr(self._channels.stubs[method.service], method.name)
        request_id = m.new_request_id()
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        attempt = 1
        while True:
            try:
                answer: m.R = stub(request, timeout=m.time_left(end, request_id), metadata=m.metadata_for(request_id))
                return answer
            except grpc.RpcError as error:
                failure = from_rpc(error, request_id, self._address)
                pause = self._retry.pause(attempt)
                repeatable = method.repeatable or bool(getattr(request, "request_id", ""))
                again = repeatable and isinstance(failure, Unavailable)
                if not again or attempt >= self._retry.attempts or time.monotonic() + pause >= end:
                    raise failure from error
            sleep(pause)
            attempt += 1

    def _ingest(self, batches: Batches, documents: Documents, timeout: float | None) -> Iterator[WriteResult]:
        # gRPC takes requests in a thread of its own, so that answers can be read while it waits to send.
        requests: queue.SimpleQueue[documents_pb2.IngestRequest | None] = queue.SimpleQueue()
        request_id = m.new_request_id()
        call: Any = self._channels.stream_stubs["Documents"].Ingest(
            iter(requests.get, None), timeout=timeout, metadata=m.metadata_for(request_id)
        )
        given = source(documents)
        more = True
        try:
            while True:
                while more and batches.unanswered < WINDOW:
                    # No value marks the end: whatever the source gives is a document, or fails in its place.
                    try:
                        document = next(given)
                    except StopIteration:
                        more = False
                        request = batches.flush()
                    else:
                        request = batches.add(document)
                    if request is not None:
                        requests.put(request)
                    if not more:
                        requests.put(None)
                if batches.unanswered == 0:
                    break
                yield from batches.answered(next_answer(call) if batches.due else None)
            batches.ended(next_answer(call))
        except grpc.RpcError as error:
            raise from_rpc(error, request_id, self._address) from error
        finally:
            # This also ends the threads that wait for a request or an answer.
            requests.put(None)
            call.cancel()
