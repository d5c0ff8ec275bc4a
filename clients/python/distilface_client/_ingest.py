"""Gathers documents into numbered batches and checks the answers against them. Both clients use it; it sends nothing.

At most `WINDOW` batches are unanswered at a time: enough that the server's encoder never waits for the network,
few enough that neither side piles up documents when the other is slow.
"""

from __future__ import annotations

from collections import deque

import grpc

from . import messages
from ._generated import documents_pb2
from .errors import Internal
from .types import DocumentLike, Durability, WriteMode, WriteResult

DEFAULT_BATCH = 64
"""Number of documents in a batch."""
BATCH_BYTES_MAX = 4 << 20
"""Bytes of a batch, unless one document has more."""
WINDOW = 4
"""Number of batches that may be unanswered."""


class Batches:
    """Collects documents into requests, and keeps the place of each that cannot be sent."""

    def __init__(
        self,
        collection: str,
        batch: int,
        mode: WriteMode = WriteMode.ANY,
        durability: Durability = Durability.POWER,
        request_id: str | None = None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; at least 1 document goes into a batch")
        self._collection = collection
        self._batch = batch
        self._mode = messages.write_mode(mode)
        self._durability = messages.durability_of(durability)
        self._request_id = request_id
        self._next = 0
        self._taken = 0
        self._open: list[documents_pb2.Document] = []
        self._bytes = 0
        # Of the batch that is being filled: the result of a document that was not sent, None for one that is.
        self._results: list[WriteResult | None] = []
        # The number of the request, None for a batch of which nothing was sent.
        self._unanswered: deque[tuple[int | None, list[WriteResult | None]]] = deque()

    def add(self, document: DocumentLike) -> documents_pb2.IngestRequest | None:
        """Takes a document; answers the batch that is full now, if one is to be sent.

        One that cannot be sent (a lone surrogate, NaN, a type that no payload holds) is a failure in its place.
        """
        self._taken += 1
        try:
            wire = messages.document(document)
        except (TypeError, ValueError, OverflowError) as error:
            self._results.append(messages.failed(document, self._taken, error))
            return self.flush() if len(self._results) >= self._batch else None
        size = wire.ByteSize()
        full = self.flush() if self._open and self._bytes + size > BATCH_BYTES_MAX else None
        self._open.append(wire)
        self._results.append(None)
        self._bytes += size
        if full is None and len(self._results) >= self._batch:
            full = self.flush()
        return full

    def flush(self) -> documents_pb2.IngestRequest | None:
        """Closes the batch that is being filled; answers it, if it is to be sent."""
        if not self._results:
            return None
        sent = bool(self._open)
        self._unanswered.append((self._next if sent else None, self._results))
        self._results = []
        if not sent:
            return None
        # Only the first message of a stream has to name the collection.
        collection = self._collection if self._next == 0 else ""
        request = documents_pb2.IngestRequest(
            collection=collection,
            sequence=self._next,
            documents=self._open,
            mode=self._mode,
            durability=self._durability,
            request_id=f"{self._request_id}-{self._next}" if self._request_id else "",
        )
        self._next += 1
        self._open = []
        self._bytes = 0
        return request

    @property
    def unanswered(self) -> int:
        """Counts the batches that were closed and not answered."""
        return len(self._unanswered)

    @property
    def due(self) -> bool:
        """Says whether the oldest batch waits for the server."""
        return bool(self._unanswered) and self._unanswered[0][0] is not None

    def answered(self, response: documents_pb2.IngestResponse | None) -> list[WriteResult]:
        """Gives the results of the oldest batch. Raises `Internal` if this is not its answer.

        A response of None means that the stream ended. If the batch is not `due`, nothing came from the server, and
        the response is not looked at.
        """
        sequence, results = self._unanswered.popleft()
        if sequence is None:
            return [result for result in results if result is not None]
        if response is None:
            raise _broken(f"it ended before batch {sequence} was answered")
        documents = sum(result is None for result in results)
        if (response.sequence, len(response.results)) != (sequence, documents):
            raise _broken(
                f"batch {sequence} of {documents} documents was due, "
                f"answered was batch {response.sequence} with {len(response.results)} results"
            )
        wires = iter(response.results)
        return [messages.write_result(next(wires)) if result is None else result for result in results]

    def ended(self, response: documents_pb2.IngestResponse | None) -> None:
        """Checks what comes after the last answer, which should be nothing. Raises `Internal` otherwise."""
        if response is not None:
            raise _broken(f"batch {response.sequence} was answered twice")


def _broken(what: str) -> Internal:
    return Internal(f"the ingest stream is broken: {what}", code=grpc.StatusCode.INTERNAL)
