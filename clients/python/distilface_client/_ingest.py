"""Documents -> numbered batches, and the answers checked against them. Shared by both clients; sends nothing.

At most `WINDOW` batches are unanswered at a time: enough that the server's encoder never waits for the network,
few enough that neither side piles up documents when the other is slow.
"""

from __future__ import annotations

from collections import deque

import grpc

from . import messages
from ._generated import documents_pb2
from .errors import Internal
from .types import Document, WriteResult

DEFAULT_BATCH = 64
BATCH_BYTES_MAX = 4 << 20
WINDOW = 4


class Batches:
    """Collects documents into requests."""

    def __init__(self, collection: str, batch: int) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; at least 1 document goes into a batch")
        self._collection = collection
        self._batch = batch
        self._next = 0
        self._open: list[documents_pb2.Document] = []
        self._bytes = 0
        self._unanswered: deque[tuple[int, int]] = deque()

    def add(self, document: Document) -> documents_pb2.IngestRequest | None:
        """Takes a document; answers the batch that is full now, if one is."""
        wire = messages.document(document)
        size = wire.ByteSize()
        full = self.flush() if self._open and self._bytes + size > BATCH_BYTES_MAX else None
        self._open.append(wire)
        self._bytes += size
        if full is None and len(self._open) >= self._batch:
            full = self.flush()
        return full

    def flush(self) -> documents_pb2.IngestRequest | None:
        """The batch that is being filled, if it holds anything."""
        if not self._open:
            return None
        # Only the first message of a stream has to name the collection.
        collection = self._collection if self._next == 0 else ""
        request = documents_pb2.IngestRequest(collection=collection, sequence=self._next, documents=self._open)
        self._unanswered.append((self._next, len(self._open)))
        self._next += 1
        self._open = []
        self._bytes = 0
        return request

    @property
    def unanswered(self) -> int:
        """Batches that were handed out and not answered."""
        return len(self._unanswered)

    def answered(self, response: documents_pb2.IngestResponse | None) -> list[WriteResult]:
        """The results of the oldest batch; None: the stream ended. Raises `Internal` if this is not its answer."""
        sequence, documents = self._unanswered.popleft()
        if response is None:
            raise _broken(f"it ended before batch {sequence} was answered")
        if (response.sequence, len(response.results)) != (sequence, documents):
            raise _broken(
                f"batch {sequence} of {documents} documents was due, "
                f"answered was batch {response.sequence} with {len(response.results)} results"
            )
        return [messages.write_result(result) for result in response.results]

    def ended(self, response: documents_pb2.IngestResponse | None) -> None:
        """What comes after the last answer, which should be nothing. Raises `Internal` otherwise."""
        if response is not None:
            raise _broken(f"batch {response.sequence} was answered twice")


def _broken(what: str) -> Internal:
    return Internal(f"the ingest stream is broken: {what}", code=grpc.StatusCode.INTERNAL)
