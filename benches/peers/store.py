"""Acknowledged writes/s of another store, the peer of `distilface bench writes`.

Each of some threads writes one document after the other: an id, a vector, and a text. What is measured is called in this
process, without a network, in the most durable mode that the store has; `promise` says what that is. Prints one line of
JSON: {"store": ..., "promise": ..., "acknowledged_per_second": ..., "p50_ms": ..., "p99_ms": ...}.

    python store.py --store chroma --writers 8 --seconds 5 --dimension 384 --text-bytes 1024 --folder /tmp/new

Needs: the store that is asked for (qdrant-edge-py, pymilvus and milvus-lite, chromadb, lancedb), numpy.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import threading
import time

import numpy


def qdrant_edge(folder, dimension):
    """A write is in the write-ahead log, which alone is not said to be synced; flush() syncs it."""
    import qdrant_edge as qdrant

    vectors = qdrant.EdgeVectorParams(size=dimension, distance=qdrant.Distance.Cosine)
    os.makedirs(folder)
    shard = qdrant.EdgeShard.create(folder, qdrant.EdgeConfig(vectors=vectors))

    def write(number, vector, text):
        point = qdrant.Point(number, vector.tolist(), {"text": text})
        shard.update(qdrant.UpdateOperation.upsert_points([point]))
        shard.flush()

    return write, "qdrant-edge-py", "flush() returned after each write"


def milvus_lite(folder, dimension):
    """The client has no setting for it; the log of the library has the mode `batch`, which syncs after each write."""
    from milvus_lite.storage import wal

    original = wal.WAL.__init__

    def init(self, *arguments, **named):
        named["sync_mode"] = "batch"
        original(self, *arguments, **named)

    wal.WAL.__init__ = init
    from milvus_lite.db import MilvusLite
    from milvus_lite.schema.types import CollectionSchema, DataType, FieldSchema

    fields = [
        FieldSchema(name="id", dtype=DataType.INT64, is_primary=True),
        FieldSchema(name="vector", dtype=DataType.FLOAT_VECTOR, dim=dimension),
        FieldSchema(name="text", dtype=DataType.VARCHAR, max_length=65535),
    ]
    collection = MilvusLite(folder).create_collection("bench", CollectionSchema(fields=fields))
    # The library is not made for several threads at once.
    lock = threading.Lock()

    def write(number, vector, text):
        with lock:
            collection.upsert([{"id": number, "vector": vector.tolist(), "text": text}])

    return write, "milvus-lite", "log synced after each write (its mode `batch`, set from outside)"


def chroma(folder, dimension):
    """SQLite with the defaults of the client."""
    import chromadb

    collection = chromadb.PersistentClient(path=folder).create_collection("bench", embedding_function=None)

    def write(number, vector, text):
        collection.upsert(ids=[str(number)], embeddings=[vector], documents=[text])

    return write, "chromadb", "SQLite committed, with the client's settings"


def lancedb(folder, dimension):
    """Each write is a new version of the table: files of its own."""
    import lancedb as lance
    import pyarrow

    schema = pyarrow.schema(
        [
            pyarrow.field("id", pyarrow.int64()),
            pyarrow.field("vector", pyarrow.list_(pyarrow.float32(), dimension)),
            pyarrow.field("text", pyarrow.string()),
        ]
    )
    table = lance.connect(folder).create_table("bench", schema=schema)

    def write(number, vector, text):
        table.add([{"id": number, "vector": vector, "text": text}])

    return write, "lancedb", "a new version of the table was written; nothing is synced"


STORES = {"qdrant-edge": qdrant_edge, "milvus-lite": milvus_lite, "chroma": chroma, "lancedb": lancedb}
PACKAGES = {"qdrant-edge": "qdrant-edge-py", "milvus-lite": "milvus-lite", "chroma": "chromadb", "lancedb": "lancedb"}


def text_of(random, size):
    """Words, so that it packs about as a text does."""
    words = random.integers(0, 1 << 20, size // 5 + 1)
    return " ".join(f"{word:x}" for word in words)[:size]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=list(STORES), required=True)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--text-bytes", type=int, default=1024)
    parser.add_argument("--folder", required=True, help="a folder that is not there yet")
    options = parser.parse_args()

    write, name, promise = STORES[options.store](options.folder, options.dimension)
    numbers = itertools.count(1)
    begun = time.perf_counter()
    end = begun + options.seconds
    times, failures = [], []

    def writer(seed):
        random = numpy.random.default_rng(seed)
        own = []
        try:
            while time.perf_counter() < end:
                vector = random.standard_normal(options.dimension, dtype=numpy.float32)
                text = text_of(random, options.text_bytes)
                asked = time.perf_counter()
                write(next(numbers), vector, text)
                own.append((time.perf_counter() - asked) * 1e3)
        except Exception as failure:
            failures.append(failure)
        times.extend(own)

    threads = [threading.Thread(target=writer, args=(seed,)) for seed in range(options.writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    if failures:
        raise failures[0]
    times.sort()
    answer = {
        "store": f"{name} {importlib.metadata.version(PACKAGES[options.store])}",
        "promise": promise,
        "acknowledged_per_second": len(times) / took,
        "p50_ms": float(numpy.percentile(times, 50)),
        "p99_ms": float(numpy.percentile(times, 99)),
    }
    # Threads of a store may not end by themselves.
    print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
