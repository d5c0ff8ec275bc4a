//! Documents as functions of few numbers, and filters that are known to match them or not.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::OnceLock,
};

use distilface::proto::{
    CollectionConfig, Document, Filter, IndexConfig, IndexKind, Metric, StoredDocument, Value, ValueList,
    Vector, filter::Form, value::Kind,
};

use super::oracle::Found;
use crate::Random;

/// What a document holds besides its id: title, text and vector follow from id and tag.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Content {
    pub(crate) tag: u64,
    pub(crate) payload: BTreeMap<String, Value>,
}

/// A collection and what its documents look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// 0: it encodes text.
    pub(crate) dimension: u32,
    pub(crate) metric: Metric,
    pub(crate) index: IndexKind,
    /// How many documents its writers have among them, without those that come in groups.
    pub(crate) documents: u64,
    /// Random characters of a text: at least, and how many more at most.
    pub(crate) noise: (u64, u64),
    /// Documents of most requests, at most.
    pub(crate) batch: u64,
}

/// Characters of which `noise` is a part: too many for a packer to find one part in another.
const NOISE_BYTES: u64 = 16 << 20;

/// Characters that do not become fewer by packing them; some of many that are made once, since long texts are needed fast.
fn noise(random: &mut Random, len: u64) -> &'static str {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    static ALL: OnceLock<String> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut random = Random(7);
        let mut all = String::with_capacity(NOISE_BYTES as usize + 10);
        while (all.len() as u64) < NOISE_BYTES {
            let mut bits = random.next();
            for _ in 0..10 {
                all.push(DIGITS[bits as usize & 63] as char);
                bits >>= 6;
            }
        }
        all
    });
    let start = random.below(NOISE_BYTES - len) as usize;
    &all[start..start + len as usize]
}

const WORDS: [&str; 12] =
    ["rain", "river", "bees", "dance", "tax", "law", "bread", "garden", "winter", "music", "stone", "letter"];

impl Shape {
    pub(crate) fn encodes(&self) -> bool {
        self.dimension == 0
    }

    pub(crate) fn config(&self) -> CollectionConfig {
        CollectionConfig {
            name: self.name.into(),
            dimension: self.dimension,
            metric: self.metric.into(),
            index: Some(IndexConfig { kind: self.index.into(), m: 12, ef_construction: 64, ef_search: 64 }),
            vectors_only: !self.encodes(),
            ..Default::default()
        }
    }

    fn random(id: &str, tag: u64) -> Random {
        let mut hasher = DefaultHasher::new();
        (id, tag).hash(&mut hasher);
        Random(hasher.finish())
    }

    pub(crate) fn vector(&self, id: &str, tag: u64) -> Vec<f32> {
        let mut random = Shape::random(id, tag);
        (0..self.dimension).map(|_| random.below(20_001) as f32 / 10_000.0 - 1.0).collect()
    }

    pub(crate) fn text(&self, id: &str, tag: u64) -> String {
        let mut random = Shape::random(id, !tag);
        if self.encodes() {
            let sentence = |n| {
                let words: Vec<&str> = (0..8).map(|_| WORDS[random.below(12) as usize]).collect();
                format!("Sentence {n} of {id} as {tag} is about {}. ", words.join(" "))
            };
            let sentences = 1 + tag % 5;
            (0..sentences).map(sentence).collect()
        } else {
            let len = self.noise.0 + random.below(self.noise.1 + 1);
            noise(&mut random, len).to_owned()
        }
    }

    /// The document as it is sent.
    pub(crate) fn document(&self, id: &str, content: &Content) -> Document {
        let vector = Vector { values: self.vector(id, content.tag) };
        Document {
            id: id.into(),
            title: content.tag.to_string(),
            text: self.text(id, content.tag),
            payload: content.payload.clone(),
            vector: (!self.encodes()).then_some(vector),
            ..Default::default()
        }
    }

    /// The document as it is shown; with vectors, if `vectors` says so.
    ///
    /// # Errors
    /// What of it nobody ever sent.
    pub(crate) fn found(&self, stored: &StoredDocument, vectors: bool) -> Result<Found, String> {
        let document = stored.document.as_ref().ok_or("no document")?;
        let id = &document.id;
        let tag: u64 = document.title.parse().map_err(|_| format!("{id} has title {:?}", document.title))?;
        if document.text != self.text(id, tag) {
            let len = document.text.len();
            return Err(format!("{id} as {tag} has another text, of {len} bytes: {:.200}", document.text));
        }
        if vectors && !self.encodes() {
            let values = document.vector.as_ref().map(|vector| &vector.values[..]).unwrap_or_default();
            // Neither metric changes a vector, so each bit is what was sent.
            let same =
                values.iter().map(|v| v.to_bits()).eq(self.vector(id, tag).iter().map(|v| v.to_bits()));
            if !same {
                return Err(format!("{id} as {tag} has another vector: {:.3?}…", values.get(..4)));
            }
        }
        let mut end = 0;
        for (ordinal, passage) in (0..).zip(&stored.passages) {
            if passage.ordinal != ordinal || passage.start < end || passage.end as usize > document.text.len()
            {
                return Err(format!("{id} as {tag} has passages {:?}", stored.passages));
            }
            // Passages may overlap by a sentence; they begin one after the other.
            end = passage.start;
        }
        if stored.passages.is_empty() {
            return Err(format!("{id} as {tag} has no passage"));
        }
        let content = Content { tag, payload: document.payload.clone() };
        Ok(Found { id: id.clone(), content, version: stored.version })
    }
}

pub(crate) fn integer(value: u64) -> Value {
    Value { kind: Some(Kind::Integer(value as i64)) }
}

pub(crate) fn string(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::String(value.into())) }
}

const COLOURS: [&str; 4] = ["red", "green", "blue", "grey"];
const LABELS: [&str; 5] = ["draft", "old", "new", "long", "kept"];

/// Fields of a document of this writer.
pub(crate) fn payload(owner: u64, random: &mut Random) -> BTreeMap<String, Value> {
    let labels: Vec<Value> =
        LABELS.iter().filter(|_| random.below(4) == 0).map(|label| string(*label)).collect();
    let mut payload = BTreeMap::from([
        ("owner".to_owned(), integer(owner)),
        ("shelf".to_owned(), integer(random.below(8))),
        ("colour".to_owned(), string(COLOURS[random.below(4) as usize])),
        ("weight".to_owned(), Value { kind: Some(Kind::Float(random.below(1000) as f64 / 8.0)) }),
    ]);
    if !labels.is_empty() {
        payload.insert("labels".into(), Value { kind: Some(Kind::List(ValueList { values: labels })) });
    }
    if random.below(3) == 0 {
        payload.insert("mark".into(), integer(random.next() >> 12));
    }
    if random.below(3) == 0 {
        let len = random.below(300);
        payload.insert("note".into(), string(noise(random, len)));
    }
    payload
}

/// A filter, and what it matches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick {
    /// Only documents of this writer.
    pub(crate) owner: Option<u64>,
    test: Test,
}

#[derive(Debug, Clone, Copy)]
enum Test {
    Shelf(u64),
    BelowAndColour(u64, &'static str),
    Label(&'static str),
    Unmarked(u64),
    Heavy(f64),
}

impl Pick {
    pub(crate) fn new(owner: Option<u64>, random: &mut Random) -> Self {
        let test = match random.below(5) {
            0 => Test::Shelf(random.below(8)),
            1 => Test::BelowAndColour(random.below(9), COLOURS[random.below(4) as usize]),
            2 => Test::Label(LABELS[random.below(5) as usize]),
            3 => Test::Unmarked(random.below(8)),
            _ => Test::Heavy(100.0 + random.below(20) as f64),
        };
        Pick { owner, test }
    }

    pub(crate) fn filter(&self) -> Filter {
        let test = match self.test {
            Test::Shelf(shelf) => format!("shelf = {shelf}"),
            Test::BelowAndColour(shelf, colour) => format!("shelf < {shelf} and colour = \"{colour}\""),
            Test::Label(label) => format!("labels contains \"{label}\""),
            Test::Unmarked(shelf) => format!("not exists(mark) and shelf = {shelf}"),
            Test::Heavy(weight) => format!("weight >= {weight:?}"),
        };
        let owner = self.owner.map(|owner| format!("owner = {owner} and ")).unwrap_or_default();
        Filter { form: Some(Form::Expression(owner + &test)) }
    }

    pub(crate) fn matches(&self, payload: &BTreeMap<String, Value>) -> bool {
        let kind = |field: &str| payload.get(field).and_then(|value| value.kind.as_ref());
        let shelf =
            |holds: &dyn Fn(i64) -> bool| matches!(kind("shelf"), Some(Kind::Integer(n)) if holds(*n));
        let owned = self.owner.is_none_or(|owner| payload.get("owner") == Some(&integer(owner)));
        owned
            && match self.test {
                Test::Shelf(is) => shelf(&|n| n == is as i64),
                Test::BelowAndColour(below, colour) => {
                    shelf(&|n| n < below as i64) && payload.get("colour") == Some(&string(colour))
                }
                Test::Label(label) => {
                    matches!(kind("labels"), Some(Kind::List(list)) if list.values.contains(&string(label)))
                }
                Test::Unmarked(is) => kind("mark").is_none() && shelf(&|n| n == is as i64),
                Test::Heavy(least) => matches!(kind("weight"), Some(Kind::Float(weight)) if *weight >= least),
            }
    }
}
