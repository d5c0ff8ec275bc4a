"""How the asyncio client sends: one call, and the stream of `ingest`. What the calls are is in `aio.py`."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio

from . import _methods as m
from ._generated import documents_pb2
from ._ingest import WINDOW, Batches
from .errors import Unavailable, from_rpc
from .types import DocumentLike, WriteResult

if TYPE_CHECKING:
    from typing_extensions import Self

Documents: TypeAlias = "Iterable[DocumentLike] | AsyncIterable[DocumentLike]"
"""What `ingest` takes documents from."""


class AsyncTransport:
    """A connection for one event loop."""

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
        secret = m.credentials_for(where, credentials)

        def channel(grpc_or_aio: Any) -> Any:
            if secret:
                return grpc_or_aio.secure_channel(where.target, secret, options)
            return grpc_or_aio.insecure_channel(where.target, options)

        self._open = channel
        self._channel: grpc.aio.Channel = channel(grpc.aio)
        self._stream_channel: grpc.Channel | None = None
        self._stubs = m.stubs(self._channel)
        self._address = where.target
        self._timeout = timeout
        self._retry = retry or m.Retry()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls that are running fail."""
        if self._stream_channel is not None:
            self._stream_channel.close()
        await self._channel.close()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _call(self, method: m.Method[Any, m.R], request: Any, timeout: float | None) -> m.R:
        stub = getattr(self._stubs[method.service], method.name)
        request_id = m.new_request_id()
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        attempt = 1
        while True:
            try:
                answer: m.R = await stub(
                    request, timeout=m.time_left(end, request_id), metadata=m.metadata_for(request_id)
                )
                return answer
            except grpc.RpcError as error:
                failure = from_rpc(error, request_id, self._address)
                pause = self._retry.pause(attempt)
                again = method.repeatable and isinstance(failure, Unavailable)
                if not again or attempt >= self._retry.attempts or time.monotonic() + pause >= end:
                    raise failure from error
            await asyncio.sleep(pause)
            attempt += 1

    async def _ingest(
        self, batches: Batches, documents: Documents, timeout: float | None
    ) -> AsyncIterator[WriteResult]:
        # grpc.aio loses the server's status if the stream ends while a request is being written, and says
        # "Internal error from Core" instead. gRPC's blocking stream does not, so that one is used, on a thread.
        requests: queue.SimpleQueue[documents_pb2.IngestRequest | None] = queue.SimpleQueue()
        request_id = m.new_request_id()
        call: Any = self._streams().Ingest(
            iter(requests.get, None), timeout=timeout, metadata=m.metadata_for(request_id)
        )
        source = aiter(documents) if isinstance(documents, AsyncIterable) else _asynchronous(documents)
        more = True
        try:
            while True:
                while more and batches.unanswered < WINDOW:
                    # No value marks the end: whatever the source gives is a document, or fails in its place.
                    try:
                        document = await anext(source)
                    except StopAsyncIteration:
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
                for result in batches.answered(await asyncio.to_thread(next, call, None) if batches.due else None):
                    yield result
            batches.ended(await asyncio.to_thread(next, call, None))
        except grpc.RpcError as error:
            raise from_rpc(error, request_id, self._address) from error
        finally:
            # This also ends the thread that waits for an answer.
            requests.put(None)
            call.cancel()

    def _streams(self) -> Any:
        """The stub of `Documents` for streams, over a channel that the first of them opens."""
        if self._stream_channel is None:
            self._stream_channel = self._open(grpc)
        return m.stubs(self._stream_channel)["Documents"]


async def _asynchronous(documents: Iterable[DocumentLike]) -> AsyncIterator[DocumentLike]:
    for document in documents:
        yield document
