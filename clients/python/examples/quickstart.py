"""Loads the sample corpus (or any JSONL file like it) and asks it five questions.

Start a server (`distilface serve`), then from the root of the repository:

    python clients/python/examples/quickstart.py [--address 127.0.0.1:7700] [models/sample/documents.jsonl]
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from distilface_client import DEFAULT_ADDRESS, Client, Document, WriteStatus, field

SAMPLE = Path(__file__).resolve().parents[3] / "models" / "sample" / "documents.jsonl"
COLLECTION = "python-quickstart"
QUESTIONS = [
    "My steak never gets a nice crust, what am I doing wrong?",
    "Why does my program print 0.30000000000000004?",
    "Something eats my lettuces overnight",
    "How did astronauts remove carbon dioxide with tape and plastic bags?",
    "Why did the value of my fixed income investment drop when interest went up?",
]


def read(path: Path) -> Iterator[Document]:
    """Reads one document per line: id, title and text are named so, and everything else becomes payload."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            fields["published"] = dt.datetime.fromisoformat(fields["published"].replace("Z", "+00:00"))
            yield Document(fields.pop("id"), fields.pop("text"), fields.pop("title"), payload=fields)


def main() -> None:
    """Ingests the corpus, searches it and prints what is found."""
    arguments = argparse.ArgumentParser(description="Load a corpus into distilface and ask it five questions.")
    arguments.add_argument("--address", default=DEFAULT_ADDRESS)
    arguments.add_argument("documents", nargs="?", type=Path, default=SAMPLE)
    given = arguments.parse_args()

    with Client(given.address) as client:
        client.wait_ready()
        client.create_collection(COLLECTION, if_not_exists=True)

        written: Counter[str] = Counter()
        for result in client.ingest(COLLECTION, read(given.documents)):
            written[result.status.value] += 1
            if result.status is WriteStatus.FAILED:
                print(f"{result.id}: {result.error}")
        print(f"{client.count(COLLECTION)} documents:", ", ".join(f"{n} {status}" for status, n in written.items()))

        for question in QUESTIONS:
            print(f"\n{question}")
            for hit in client.search(COLLECTION, question, k=3):
                print(f"  {hit.score:.3f}  {hit.title}: {hit.passage.text[:90].replace(chr(10), ' ')}…")

        print("\nOnly history before 1900, as conditions or as text:")
        before_1900 = (field("topic") == "history") & (field("year") < 1900)
        for condition in (before_1900, 'topic = "history" and year < 1900'):
            hits = client.search(COLLECTION, "how news and ideas spread", k=2, filter=condition)
            print("  " + "; ".join(f"{hit.title} ({hit.payload['year']})" for hit in hits))


if __name__ == "__main__":
    main()
