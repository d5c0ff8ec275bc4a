"""Every call against the real server, with its errors."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from distilface_client import (
    AlreadyExists,
    Chunking,
    Client,
    DeadlineExceeded,
    DistilfaceError,
    Document,
    Durability,
    FailedPrecondition,
    FilterHint,
    HealthStatus,
    IndexConfig,
    IndexKind,
    InvalidArgument,
    Metric,
    NotFound,
    Query,
    Retry,
    TextKind,
    TooLarge,
    WriteMode,
    WriteStatus,
    field,
)

from .conftest import Server

MOMENT = dt.datetime(2024, 3, 5, 12, 30, 0, 123456, tzinfo=dt.timezone.utc)
ANIMALS = [
    Document(
        "cat", "The cat sleeps on the sofa.", "Cats", {"year": 2001, "tags": ["pet", "soft"], "published": MOMENT}
    ),
    Document("dog", "The dog barks at the postman.", "Dogs", {"year": 2005, "tags": ["pet"], "score": 0.5}),
    Document("whale", "The whale dives into the deep sea.", "Whales", {"year": 2010, "wild": True}),
]


@pytest.fixture
def name() -> str:
    """A collection's name that no other test uses."""
    return f"t-{uuid.uuid4().hex}"


@pytest.fixture
def animals(client: Client, name: str) -> Iterator[str]:
    """A collection with three documents."""
    client.create_collection(name)
    client.upsert(name, ANIMALS)
    yield name
    client.delete_collection(name)


@pytest.fixture
def vectors(client: Client, name: str) -> Iterator[str]:
    """A collection of vectors without an encoder."""
    client.create_collection(name, dimension=3, vectors_only=True, metric=Metric.EUCLIDEAN)
    client.upsert(name, [Document("x", vector=[1, 0, 0]), Document("y", vector=(0.0, 1.0, 0.0))])
    yield name
    client.delete_collection(name)


def test_a_collection_is_what_it_was_asked_to_be(client: Client, name: str) -> None:
    made = client.create_collection(
        name,
        metric=Metric.DOT,
        index=IndexConfig(IndexKind.FLAT),
        chunking=Chunking(max_tokens=20, overlap_tokens=4),
    )
    assert (made.name, made.metric, made.index.kind) == (name, Metric.DOT, IndexKind.FLAT)
    assert (made.chunking.max_tokens, made.chunking.overlap_tokens) == (20, 4)
    assert made.dimension == client.models()[0].dimension
    assert made.model
    assert made.model_fingerprint
    assert abs((dt.datetime.now(dt.timezone.utc) - made.created_at).total_seconds()) < 60
    assert client.collection(name) == made
    assert made in client.collections()
    client.delete_collection(name)
    with pytest.raises(NotFound):
        client.collection(name)


def test_a_collection_is_made_once(client: Client, animals: str) -> None:
    with pytest.raises(AlreadyExists, match=animals):
        client.create_collection(animals)
    assert client.create_collection(animals, if_not_exists=True).name == animals
    with pytest.raises(AlreadyExists, match="other settings"):
        client.create_collection(animals, metric=Metric.DOT, if_not_exists=True)


def test_settings_that_are_not_named_are_not_compared(client: Client, name: str) -> None:
    made = client.create_collection(name, metric=Metric.DOT, chunking=Chunking(max_tokens=20))
    assert client.create_collection(name, if_not_exists=True) == made
    client.delete_collection(name)


def test_an_alias_stands_for_its_collection(client: Client, animals: str) -> None:
    alias = f"a-{animals}"
    assert client.set_alias(alias, animals) is None
    assert client.set_alias(alias, animals) == animals
    assert client.count(alias) == 3
    assert client.collection(alias).name == animals
    assert client.collection(animals).aliases == (alias,)
    client.delete_alias(alias)
    with pytest.raises(NotFound):
        client.count(alias)
    with pytest.raises(NotFound):
        client.delete_alias(alias)


def test_documents_come_back_as_they_went(client: Client, animals: str) -> None:
    fetched = client.get(animals, ["whale", "nobody", "cat"], with_vectors=True)
    assert fetched.missing == ("nobody",)
    whale, cat = fetched.documents
    assert (cat.id, cat.text, cat.title) == ("cat", ANIMALS[0].text, "Cats")
    assert cat.payload == {"published": MOMENT, "tags": ["pet", "soft"], "year": 2001}
    assert whale.payload == {"wild": True, "year": 2010}
    assert cat.passages[0].start == 0
    assert cat.vector is not None
    assert math.isclose(math.hypot(*cat.vector), 1.0, rel_tol=1e-4)
    assert cat.updated_at.utcoffset() == dt.timedelta(0)
    assert client.get(animals, "cat").documents[0].vector is None


def test_writing_says_what_happened(client: Client, animals: str) -> None:
    again = [ANIMALS[0], Document("dog", "The dog sleeps too."), Document("bee", "The bee hums.")]
    results = client.upsert(animals, again)
    assert [(r.id, r.status) for r in results] == [
        ("cat", WriteStatus.UNCHANGED),
        ("dog", WriteStatus.UPDATED),
        ("bee", WriteStatus.INSERTED),
    ]
    assert results[2].passages == 1
    assert results[2].tokens > 0
    assert not results[2].truncated


def test_ingest_answers_each_document_and_goes_on_after_a_bad_one(client: Client, animals: str) -> None:
    def source() -> Iterator[Document]:
        for i in range(500):
            yield Document("" if i == 100 else f"n{i:03}", f"Document number {i} of many.", payload={"i": i})

    results = list(client.ingest(animals, source(), batch=32))
    assert len(results) == 500
    assert [r.id for r in results[:2]] == ["n000", "n001"]
    failed = [r for r in results if r.status is WriteStatus.FAILED]
    assert failed == [results[100]]
    assert failed[0].error
    assert client.count(animals, filter=field("i") >= 0) == 499
    again = {
        r.status for r in client.ingest(animals, [Document("n001", "Document number 1 of many.", payload={"i": 1})])
    }
    assert again == {WriteStatus.UNCHANGED}


def test_a_bad_document_in_a_stream_fails_by_id_and_place(client: Client, animals: str) -> None:
    def source() -> Iterator[Any]:
        for i in range(1, 301):
            if i == 150:
                yield {"id": i, "text": "half a pair \ud83d"}
            elif i == 151:
                yield {"id": i, "text": "text", "payload": {"weight": math.nan}}
            else:
                yield {"id": i, "text": f"Document number {i} of many.", "payload": {"i": i, "none": None}}

    results = list(client.ingest(animals, source()))
    assert [r.id for r in results] == [str(i) for i in range(1, 301)]
    failed = [r for r in results if r.status is WriteStatus.FAILED]
    assert [(r.id, f"document {r.id} of the stream" in r.error) for r in failed] == [("150", True), ("151", True)]
    assert client.count(animals, filter=field("i") > 0) == 298


def test_a_vector_that_is_not_finite_fails_alone(client: Client, vectors: str) -> None:
    stream = [Document("a", vector=[1, 0, 0]), Document("b", vector=[math.nan, 0, 0]), Document("c", vector=[0, 0, 1])]
    results = list(client.ingest(vectors, stream))
    assert [r.status for r in results] == [WriteStatus.INSERTED, WriteStatus.FAILED, WriteStatus.INSERTED]
    assert "document" in results[1].error
    assert "finite" in results[1].error


def test_a_filter_on_a_field_that_nobody_has_is_told(client: Client, animals: str) -> None:
    with pytest.warns(FilterHint, match='did you mean "year"'):
        found = client.search(animals, "an animal", filter="yaer > 2000")
    assert (len(found), len(found.hints)) == (0, 1)
    with pytest.warns(FilterHint, match="yaer"):
        counted = client.count(animals, filter=field("yaer") > 2000)
    assert (counted, counted.hints) == (0, found.hints)
    with pytest.warns(FilterHint, match="yaer"):
        assert client.delete(animals, filter="yaer > 2000") == 0
    with pytest.warns(FilterHint, match="yaer"):
        assert list(client.scroll(animals, filter="yaer > 2000")) == []
    assert client.search(animals, "an animal", filter="year > 2000").hints == ()


def test_the_ends_of_the_calendar_come_back(client: Client, animals: str) -> None:
    no_end = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.timezone.utc)
    first = dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc)
    client.upsert(animals, [Document("law", "A law.", payload={"end": no_end, "begin": dt.date(1, 1, 1)})])
    assert client.get(animals, "law").documents[0].payload == {"begin": first, "end": no_end}
    assert client.count(animals, filter=field("end") >= dt.date(9999, 12, 31)) == 1
    assert client.count(animals, filter="end > 9999-12-31 and begin < 0001-01-02") == 1


def test_ingest_into_nothing_is_not_found(client: Client, name: str) -> None:
    with pytest.raises(NotFound, match=name):
        list(client.ingest(name, (Document(f"{i}", "text") for i in range(1000))))


def test_long_documents_have_passages(client: Client, name: str) -> None:
    client.create_collection(name, chunking=Chunking(max_tokens=16))
    text = " ".join(f"Sentence number {i} says something about the sea and the sky." for i in range(20))
    (written,) = client.upsert(name, [Document("long", text)])
    assert written.passages > 1
    (stored,) = client.get(name, ["long"]).documents
    assert len(stored.passages) == written.passages
    hits = client.search(name, "the sea", k=50, by_passage=True)
    assert len(hits) == written.passages
    assert len(client.search(name, "the sea", k=50)) == 1
    passage = hits[0].passage
    assert text.encode()[passage.start : passage.end].decode() == passage.text
    client.delete_collection(name)


def test_scroll_walks_over_every_page(client: Client, animals: str) -> None:
    client.upsert(animals, [Document(f"n{i}", f"Text {i}") for i in range(7)])
    ids = [document.id for document in client.scroll(animals, page=3)]
    assert ids == sorted(ids)
    assert len(ids) == 10
    texts = [d.text for d in client.scroll(animals, filter="year >= 2005", with_text=False)]
    assert texts == ["", ""]


def test_set_payload_changes_fields_and_encodes_nothing(client: Client, animals: str) -> None:
    before = client.get(animals, "cat", with_vectors=True).documents[0]
    done = client.set_payload(animals, ["cat", "nobody"], {"year": 1999, "kept": True})
    assert [r.status for r in done.results] == [WriteStatus.UPDATED]
    assert (done.missing, done.results[0].tokens) == (("nobody",), 0)
    after = client.get(animals, "cat", with_vectors=True).documents[0]
    assert after.payload == {**before.payload, "year": 1999, "kept": True}
    assert (after.text, after.vector) == (before.text, before.vector)
    assert client.count(animals, filter=field("year") == 1999) == 1
    client.set_payload(animals, "cat", remove="year")
    assert "year" not in client.get(animals, "cat").documents[0].payload
    client.set_payload(animals, "cat", {"only": "this"}, replace=True)
    assert client.get(animals, "cat").documents[0].payload == {"only": "this"}
    with pytest.raises(InvalidArgument):
        client.set_payload(animals, "cat")


def test_set_payload_takes_a_filter_and_counts(client: Client, animals: str) -> None:
    done = client.set_payload(animals, filter=field("year") >= 2005, payload={"old": False})
    assert (done.matched, done.changed, done.unchanged, done.failed) == (2, 2, 0, 0)
    assert (done.results, done.missing, done.hints) == ((), (), ())
    done = client.set_payload(animals, filter="year >= 2000", payload={"old": False})
    assert (done.matched, done.changed, done.unchanged) == (3, 1, 2)
    with pytest.warns(FilterHint, match="yaer"):
        assert client.set_payload(animals, filter="yaer > 2000", payload={"old": True}).hints
    failed = client.set_payload(animals, filter="old = false", payload={"x": "x" * 70_000})
    assert (failed.failed, failed.results[0].error_kind) == (3, "INVALID")
    neither_and_both: list[dict[str, Any]] = [{}, {"ids": "cat", "filter": "year = 1"}]
    for given in neither_and_both:
        with pytest.raises(TypeError, match="either ids or a filter"):
            client.set_payload(animals, payload={"a": 1}, **given)


def test_a_document_is_written_only_over_the_version_that_was_read(client: Client, animals: str) -> None:
    read = client.get(animals, "cat").documents[0]
    assert read.version > 0
    assert client.search(animals, read.text, k=1)[0].version == read.version
    [written] = client.upsert(animals, [Document("cat", "The cat ran away.", expected_version=read.version)])
    assert (written.status, written.version > read.version) == (WriteStatus.UPDATED, True)
    [same] = client.upsert(animals, [{"id": "cat", "text": "The cat ran away.", "expected_version": written.version}])
    assert (same.status, same.version) == (WriteStatus.UNCHANGED, written.version)
    stale = Document("cat", "The cat came back.", expected_version=read.version)
    with pytest.raises(FailedPrecondition, match="read it again") as caught:
        client.upsert(animals, [Document("hen", "A hen."), stale])
    assert [violation.field for violation in caught.value.violations] == ["expected_version"]
    assert client.get(animals, "hen").missing == ("hen",)
    hen, failed = client.ingest(animals, [Document("hen", "A hen."), stale])
    assert (hen.status, failed.status, failed.error_kind) == (WriteStatus.INSERTED, WriteStatus.FAILED, "PRECONDITION")
    with pytest.raises(FailedPrecondition, match="cat"):
        client.delete(animals, ["hen", "cat"], expected_versions={"cat": read.version})
    done = client.set_payload(animals, ["hen", "cat"], {"n": 1}, expected_versions={"cat": read.version})
    assert [(r.id, r.error_kind) for r in done.results] == [("hen", ""), ("cat", "PRECONDITION")]
    assert client.delete(animals, ["hen", "cat"], expected_versions={"cat": written.version}) == 2


def test_a_write_may_only_insert_or_only_replace(client: Client, animals: str) -> None:
    with pytest.raises(AlreadyExists, match="cat"):
        client.upsert(animals, [Document("hen", "A hen."), Document("cat", "A cat.")], mode=WriteMode.INSERT_ONLY)
    with pytest.raises(NotFound, match="hen"):
        client.upsert(animals, [Document("hen", "A hen.")], mode=WriteMode.REPLACE_ONLY)
    documents = [Document("cat", "A cat."), Document("hen", "A hen.")]
    # More than one message: each says its mode.
    results = list(client.ingest(animals, documents, mode=WriteMode.INSERT_ONLY, batch=1))
    assert [(r.status, r.error_kind) for r in results] == [(WriteStatus.FAILED, "EXISTS"), (WriteStatus.INSERTED, "")]
    results = list(client.ingest(animals, documents, mode=WriteMode.REPLACE_ONLY, batch=1))
    assert [r.status for r in results] == [WriteStatus.UPDATED, WriteStatus.UNCHANGED]


def test_a_write_with_a_request_id_is_done_once(client: Client, animals: str) -> None:
    once = "9f1c5c9e-6a5e-4f0e-a1de-2d7f3c0f2b11"
    written = client.upsert(animals, [Document("hen", "A hen.")], request_id=once)
    assert client.delete(animals, "hen", request_id=f"{once}-delete") == 1
    # Neither is done again, and both are answered as they were.
    assert client.upsert(animals, [Document("hen", "A hen.")], request_id=once) == written
    assert client.delete(animals, "hen", request_id=f"{once}-delete", durability=Durability.PROCESS) == 1
    assert client.get(animals, "hen").missing == ("hen",)
    with pytest.raises(AlreadyExists, match="another request") as caught:
        client.upsert(animals, [Document("hen", "Another hen.")], request_id=once)
    assert [violation.field for violation in caught.value.violations] == ["request_id"]
    with pytest.raises(InvalidArgument, match="UUID"):
        client.upsert(animals, [Document("hen", "A hen.")], request_id="two words")
    documents = [Document(str(n), "A hen.") for n in range(5)]
    results = list(client.ingest(animals, documents, batch=2, request_id="load", durability=Durability.PROCESS))
    client.delete(animals, "3")
    assert list(client.ingest(animals, documents, batch=2, request_id="load")) == results
    assert client.get(animals, "3").missing == ("3",)
    done = client.set_payload(animals, ["0", "1"], {"n": 1, "m": 2}, request_id="set")
    client.set_payload(animals, "0", {"n": 7})
    assert client.set_payload(animals, ["0", "1"], {"n": 1, "m": 2}, request_id="set") == done
    assert client.count(animals, filter="n = 7") == 1


def test_fields_are_removed_by_name_or_all(client: Client, animals: str) -> None:
    client.set_payload(animals, "cat", {"n": 1, "m": 2}, replace=True)
    done = client.unset_payload(animals, ["cat", "none"], "n", durability=Durability.PROCESS)
    assert (done.changed, done.missing) == (1, ("none",))
    assert client.get(animals, "cat").documents[0].payload == {"m": 2}
    assert client.unset_payload(animals, filter="m = 2", all=True).changed == 1
    assert client.get(animals, "cat").documents[0].payload == {}
    with pytest.raises(InvalidArgument, match="fields"):
        client.unset_payload(animals, "cat")
    with pytest.raises(TypeError, match="ids or a filter"):
        client.unset_payload(animals, fields="n")


@pytest.mark.parametrize("bad", [0, -1, 1 << 64, True, "7", 1.0])
def test_what_is_no_version_is_refused_before_it_is_sent(client: Client, animals: str, bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="expected_version"):
        client.upsert(animals, [Document("cat", "x", expected_version=bad)])
    with pytest.raises((TypeError, ValueError), match="'cat'"):
        client.delete(animals, "cat", expected_versions={"cat": bad})
    [failed] = client.ingest(animals, [Document("cat", "x", expected_version=bad)])
    assert failed.status is WriteStatus.FAILED


def test_what_was_not_encoded_whole_is_told(client: Client, animals: str) -> None:
    title = "the cat and the dog " * 40
    [result] = client.upsert(animals, [Document(id="x", title=title, text="x" * 101)])
    assert result.title_truncated
    assert result.unknown_tokens == 1


def test_delete_by_id_and_by_filter(client: Client, animals: str) -> None:
    assert client.delete(animals, "nobody") == 0
    assert client.delete(animals, ["cat"]) == 1
    assert client.delete(animals, filter=field("year") > 2005) == 1
    assert [d.id for d in client.scroll(animals)] == ["dog"]
    with pytest.raises(TypeError, match="either ids or a filter"):
        client.delete(animals)


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        (field("year") >= 2005, {"dog", "whale"}),
        (field("year").between(2001, 2005), {"cat", "dog"}),
        (field("year").is_in([2001, 2010]), {"cat", "whale"}),
        (field("tags").contains("soft"), {"cat"}),
        (field("tags") == "pet", {"cat", "dog"}),
        (field("wild").exists(), {"whale"}),
        (field("wild").missing() & (field("score") < 1.0), {"dog"}),
        (~(field("year") == 2001), {"dog", "whale"}),
        ((field("wild") == True) | (field("published") == MOMENT), {"cat", "whale"}),  # noqa: E712
        ('year >= 2005 or tags contains "soft"', {"cat", "dog", "whale"}),
        ("not exists(tags)", {"whale"}),
    ],
)
def test_filters_mean_what_they_say(client: Client, animals: str, condition: Any, ids: set[str]) -> None:
    assert {hit.id for hit in client.search(animals, "an animal", filter=condition)} == ids
    assert client.count(animals, filter=condition) == len(ids)


def test_search_finds_the_text_itself_first(client: Client, animals: str) -> None:
    result = client.search(animals, "Cats\nThe cat sleeps on the sofa.", k=2, explain=True)
    assert len(result) == 2
    best = result[0]
    assert (best.id, best.title) == ("cat", "Cats")
    assert best.passage.text == ANIMALS[0].text
    assert best.payload["year"] == 2001
    assert best.score >= result[1].score
    assert [hit.id for hit in result] == [hit.id for hit in result.hits]
    assert result.tokens > 2
    assert not result.truncated
    assert result.explain is not None
    assert result.explain.plan
    assert result.explain.total_us > 0
    plain = client.search(animals, "cat", with_payload=False, with_text=False, exact=True)
    assert plain.explain is None
    assert plain[0].payload == {}
    assert plain[0].passage.text == ""


def test_search_by_document_leaves_it_out(client: Client, animals: str) -> None:
    assert {hit.id for hit in client.search(animals, like="cat")} == {"dog", "whale"}
    with pytest.raises(NotFound, match="nobody"):
        client.search(animals, like="nobody")


def test_search_by_vector(client: Client, vectors: str) -> None:
    hits = client.search(vectors, vector=[0.9, 0.0, 0.0])
    assert [hit.id for hit in hits] == ["x", "y"]
    assert hits[0].score == pytest.approx(1 / 1.1, rel=1e-4)
    assert [hit.id for hit in client.search(vectors, vector=[0.9, 0.0, 0.0], threshold=0.8)] == ["x"]
    assert client.get(vectors, "y", with_vectors=True).documents[0].vector == (0.0, 1.0, 0.0)
    assert [d.vector for d in client.scroll(vectors, page=1, with_vectors=True)] == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]


def test_batches_are_answered_in_order(client: Client, animals: str) -> None:
    queries = [
        Query(animals, like="cat", k=1),
        Query(animals, "dog", k=2, filter="year = 2010"),
        Query(animals, "x", k=3),
    ]
    assert [len(result) for result in client.search_batch(queries)] == [1, 1, 3]
    with pytest.raises(InvalidArgument):
        client.search_batch([Query(animals, "x"), Query(animals, "x", k=0)])


def test_exactly_one_thing_is_searched_for(client: Client, animals: str) -> None:
    with pytest.raises(TypeError, match="exactly one"):
        client.search(animals)
    with pytest.raises(TypeError, match="exactly one"):
        client.search(animals, "text", like="cat")


def test_embeddings_and_similarity(client: Client) -> None:
    result = client.embed(["one text", "another text"], kind=TextKind.DOCUMENT)
    (model,) = [m for m in client.models() if m.loaded]
    assert len(result) == 2
    assert len(result[0].values) == model.dimension
    assert result.model_fingerprint == model.fingerprint
    assert result[0].tokens > 2
    same, other = client.similarity("one text", ["one text", "something else entirely"])
    assert same == pytest.approx(1.0, abs=1e-4)
    assert other < same
    assert model.device
    assert model.default
    named = client.embed(["one text", "another text"], kind=TextKind.DOCUMENT, model=model.name)
    assert named.model_fingerprint == model.fingerprint
    assert client.similarity("a", ["a"], model=model.name)[0] == pytest.approx(1.0, abs=1e-4)
    assert client.use_model(model.name) == model
    for call in (
        lambda: client.embed(["a"], model="nope"),
        lambda: client.use_model("nope"),
        lambda: client.create_collection("of-another", model="nope"),
    ):
        with pytest.raises(NotFound, match="nope"):
            call()
    with pytest.raises(TypeError, match="list of texts"):
        client.embed("one text")
    with pytest.raises(TypeError, match="list of texts"):
        client.similarity("one", "text")


def test_stats_count(client: Client, animals: str) -> None:
    stats = client.stats(animals)
    assert (stats.documents, stats.passages) == (3, 3)
    assert stats.vector_bytes > 0
    fields = {f.field: f for f in stats.fields}
    assert (stats.fields_total, stats.next_fields_page_token) == (len(fields), "")
    assert fields["year"].types == ("integer",)
    assert fields["tags"].documents == 2


def test_health(client: Client) -> None:
    assert client.health() is HealthStatus.SERVING
    with pytest.raises(NotFound):
        client.health("no.such.Service")


def test_errors_carry_message_reason_and_request_id(client: Client, animals: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.search(animals, "x", k=0)
    error = caught.value
    assert (error.reason, error.violations[0].field) == ("INVALID", "k")
    assert "k must be between 1" in error.message
    assert error.request_id
    assert error.request_id in str(error)


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda c, n: c.search("nowhere", "x"), NotFound, "nowhere"),
        (lambda c, n: c.create_collection("no spaces allowed"), InvalidArgument, "name"),
        (lambda c, n: c.search(n, "x", k=1_000_000), InvalidArgument, "k must be"),
        (lambda c, n: c.search(n, ""), InvalidArgument, ""),
        (lambda c, n: c.search(n, "x", filter="year >="), InvalidArgument, "position"),
        (lambda c, n: c.search(n, "x", filter=field("year") > "old"), InvalidArgument, "year"),
        (lambda c, n: c.search(n, vector=[1.0]), DistilfaceError, "dimension"),
        (lambda c, n: c.search(n, vector=[math.nan] * 8), DistilfaceError, ""),
        (lambda c, n: c.upsert(n, [Document("1", "a"), Document("1", "b")]), InvalidArgument, "twice"),
        (lambda c, n: c.upsert(n, [Document("", "a")]), InvalidArgument, "id"),
        (lambda c, n: c.upsert(n, [Document("1", "x" * (5 << 20))]), InvalidArgument, ""),
        (lambda c, n: c.upsert(n, [Document("1", "x" * (17 << 20))]), TooLarge, "message"),
        (lambda c, n: c.set_alias("alias", "nowhere"), NotFound, "nowhere"),
    ],
)
def test_bad_requests_are_refused(
    client: Client, animals: str, call: Any, kind: type[DistilfaceError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        call(client, animals)
    assert said in caught.value.message
    assert caught.value.request_id
    assert client.count(animals) == 3


def test_text_needs_an_encoder(client: Client, vectors: str) -> None:
    with pytest.raises((InvalidArgument, FailedPrecondition), match="vector"):
        client.search(vectors, "text")


def test_payloads_are_checked_before_they_are_sent(client: Client, animals: str) -> None:
    with pytest.raises(ValueError, match="document 'x', payload field 'n'"):
        client.upsert(animals, [Document("x", "text", payload={"n": 2**63})])
    naive = dt.datetime(2024, 1, 1)
    with pytest.raises(ValueError, match="no time zone"):
        client.upsert(animals, [Document("x", "text", payload={"at": naive})])


def test_a_deadline_in_the_past_is_exceeded(client: Client, animals: str) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        client.search(animals, "x", timeout=0)
    assert caught.value.request_id


def test_an_address_as_serve_prints_it(server: Server) -> None:
    assert server.address.startswith("http://")
    with Client(server.address, retry=Retry(attempts=1), timeout=5) as client:
        client.wait_ready()


def test_a_backup_is_made_listed_and_restored(client: Client, animals: str, name: str) -> None:
    client.set_alias(f"{name}-alias", animals)
    made = client.create_backup(name, [f"{name}-alias"])
    assert (made.name, [one.name for one in made.collections], made.damage) == (name, [animals], "")
    (kept,) = made.collections
    assert (kept.documents, kept.aliases) == (3, (f"{name}-alias",))
    assert made.made_at is not None
    assert abs((dt.datetime.now(dt.timezone.utc) - made.made_at).total_seconds()) < 60
    assert 0 <= made.linked_bytes <= made.bytes
    assert dataclasses.replace(made, linked_bytes=0) in client.backups()
    with pytest.raises(AlreadyExists):
        client.create_backup(name, copy=True)

    client.delete(animals, "cat")
    (restored,) = client.restore_backup(name, animals, rename=f"{name}-then")
    assert (restored.source, restored.documents, restored.missing_model) == (animals, 3, "")
    assert restored.aliases_left == (f"{name}-alias",)
    assert restored.collection == client.collection(f"{name}-then")
    stored = client.get(f"{name}-then", "cat").documents[0]
    assert (stored.text, stored.payload["published"]) == (ANIMALS[0].text, MOMENT)
    assert client.search(f"{name}-then", "a pet that sleeps", k=3)
    with pytest.raises(AlreadyExists):
        client.restore_backup(name, animals)
    with pytest.raises(InvalidArgument):
        client.restore_backup(name, animals, rename=f"{name}-other", aliases=True)
    client.delete_collection(f"{name}-then")


def test_backups_are_named_and_never_by_a_path(client: Client, animals: str) -> None:
    for bad in ("../x", "/tmp/x", ".x", ""):
        with pytest.raises(InvalidArgument):
            client.create_backup(bad)
        with pytest.raises(InvalidArgument):
            client.restore_backup(bad)
    with pytest.raises(NotFound):
        client.restore_backup("nobody-made-this-one")
    with pytest.raises(NotFound):
        client.create_backup("of-nobody", [animals, "no-such-collection"])
