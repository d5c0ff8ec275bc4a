"""Holds what truly differs between the asyncio client and the blocking one; all else is written once, for asyncio.

Each thing stands here twice: under its asyncio name (`Async...`, `async_...`) and, without that prefix, in its
blocking form. `generate_blocking.py` drops the prefix, so generated files find the second where their source names the
first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, TypeAlias

import grpc
import grpc.aio

from . import _methods as m
from .types import DocumentLike

AsyncDocuments: TypeAlias = "Iterable[DocumentLike] | AsyncIterable[DocumentLike]"
"""What `AsyncClient.ingest` takes documents from."""
Documents: TypeAlias = "Iterable[DocumentLike]"
"""What `Client.ingest` takes documents from."""


class AsyncChannels:
    """Holds the stubs of an asyncio client, by service, and the channels below them."""

    def __init__(
        self, address: m.Address, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, Any]]
    ) -> None:
        self._where = (address, credentials, options)
        self._channel: grpc.aio.Channel = m.channel(grpc.aio, *self._where)
        self._stream_channel: grpc.Channel | None = None
        self._stream_stubs: dict[str, Any] = {}
        self.stubs = m.stubs(self._channel)

    @property
    def stream_stubs(self) -> dict[str, Any]:
        """Gives the stubs for streams, which block, over a channel that the first stream opens.

        grpc.aio loses the server's status if a stream ends while a request is being written, and says
        "Internal error from Core" instead. gRPC's blocking streams do not, so those are used, with a thread that
        waits for the answer.
        """
        if self._stream_channel is None:
            self._stream_channel = m.channel(grpc, *self._where)
            self._stream_stubs = m.stubs(self._stream_channel)
        return self._stream_stubs

    async def close(self) -> None:
        """Closes the channels."""
        if self._stream_channel is not None:
            self._stream_channel.close()
        await self._channel.close()


class Channels:
    """Holds the stubs of a blocking client, by service, and the channel below them."""

    def __init__(
        self, address: m.Address, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, Any]]
    ) -> None:
        self._channel: grpc.Channel = m.channel(grpc, address, credentials, options)
        self.stubs = self.stream_stubs = m.stubs(self._channel)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


async def async_sleep(seconds: float) -> None:
    """Lets other tasks run for this time."""
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    """Holds this thread for this time."""
    time.sleep(seconds)


async def async_next_answer(call: Any) -> Any:
    """Takes the next answer of a stream, None at its end; a thread waits for it."""
    return await asyncio.to_thread(next, call, None)


def next_answer(call: Any) -> Any:
    """Takes the next answer of a stream, None at its end."""
    return next(call, None)


def async_source(documents: AsyncDocuments) -> AsyncIterator[DocumentLike]:
    """Yields the documents of either kind of iterable, to be awaited."""
    return aiter(documents) if isinstance(documents, AsyncIterable) else _awaited(documents)


def source(documents: Documents) -> Iterator[DocumentLike]:
    """Yields the documents of an iterable."""
    return iter(documents)


async def _awaited(documents: Iterable[DocumentLike]) -> AsyncIterator[DocumentLike]:
    for document in documents:
        yield document
