//! Estimates from the bytes of a request how much memory it takes once it is decoded, before anything is decoded.
//!
//! An empty element of a list has two bytes on the wire and hundreds in memory, so 16 MiB of them would take gigabytes.
//! The bytes are walked with the descriptors of our own build beside them: every element is counted with about the size
//! of what it becomes, and the walk ends at the first one too many. It allocates nothing and copies nothing.
//! Leaves out what only the decoder can say: whether texts are UTF-8 and fields of the right type.

use std::{collections::HashMap, sync::Arc};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// Messages in messages, as the decoder takes them.
const DEPTH_MAX: usize = 100;
/// What the allocator and the decoder add to one string or one element of a list.
const ALLOCATION_BYTES: usize = 16;
/// What an entry of a map takes besides: its share of a node that is rarely full.
const ENTRY_BYTES: usize = 48;
/// Of a list, a map or a string where it stands in its message.
const HANDLE_BYTES: usize = 24;
/// Of a number, and of what says which member of a oneof is there.
const NUMBER_BYTES: usize = 8;

/// Every message and method of the API.
#[derive(Debug)]
pub(super) struct Schema {
    messages: Vec<Message>,
    methods: Vec<Method>,
}

/// A method of the API.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    /// `Service/Method`.
    pub(crate) name: Arc<str>,
    /// Whether the client sends any number of messages.
    pub(crate) streaming: bool,
    /// Whether what it sends is encoded and stored.
    pub(crate) writes: bool,
    /// Whether it may take as long as its client lets it.
    pub(crate) long: bool,
    input: usize,
}

#[derive(Debug, Default)]
struct Message {
    name: String,
    /// About what one takes in memory, its lists and texts not counted.
    bytes: usize,
    /// By number.
    fields: Vec<(u32, Field)>,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Message(usize),
    /// A string or bytes.
    Text,
    /// A number; in a list, each takes this many bytes for one byte on the wire at most.
    Number {
        repeated: bool,
        widens: usize,
    },
}

/// Why the bytes of a message are refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misshapen {
    /// It is no message of this type.
    Malformed(String),
    /// It would take more than the memory allowed.
    TooMuch,
}

impl Schema {
    /// From the descriptors that reflection serves.
    pub(super) fn new() -> Self {
        let set = FileDescriptorSet::decode(crate::proto::FILE_DESCRIPTOR_SET)
            .expect("the descriptors were written by our own build");
        let mut descriptors = Vec::new();
        for file in &set.file {
            gather(&format!(".{}", file.package()), &file.message_type, &mut descriptors);
        }
        let places: HashMap<&str, usize> =
            descriptors.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
        let mut messages: Vec<Message> = descriptors
            .iter()
            .map(|(name, descriptor)| Message {
                name: name.trim_start_matches('.').to_owned(),
                bytes: 0,
                fields: fields(descriptor, &places),
            })
            .collect();
        for (place, message) in messages.iter_mut().enumerate() {
            message.bytes = memory_bytes(place, &descriptors, &places, &mut Vec::new());
        }
        let mut methods = Vec::new();
        for file in set.file.iter().filter(|file| file.package() == "distilface.v1") {
            for service in &file.service {
                methods.extend(service.method.iter().map(|method| Method {
                    name: format!("{}/{}", service.name(), method.name()).into(),
                    streaming: method.client_streaming(),
                    writes: matches!(method.name(), "Ingest" | "Upsert"),
                    long: service.name() == "Backups",
                    input: places[method.input_type()],
                }));
            }
        }
        Schema { messages, methods }
    }

    /// The method of a name such as `Documents/Get`.
    pub(super) fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| &*method.name == name)
    }

    /// About what the request in `bytes` takes in memory once it is decoded.
    ///
    /// # Errors
    /// [`Misshapen`]; [`Misshapen::TooMuch`] at the first element beyond `bytes_max`.
    pub(super) fn decoded_bytes(
        &self,
        method: &Method,
        bytes: &[u8],
        bytes_max: usize,
    ) -> Result<usize, Misshapen> {
        let mut walk = Walk { schema: self, left: bytes_max };
        walk.message(method.input, bytes, 0)?;
        Ok(bytes_max - walk.left)
    }
}

/// One look at the bytes of a request.
struct Walk<'a> {
    schema: &'a Schema,
    /// Bytes of memory that may still be taken.
    left: usize,
}

impl Walk<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), Misshapen> {
        self.left = self.left.checked_sub(bytes).ok_or(Misshapen::TooMuch)?;
        Ok(())
    }

    fn message(&mut self, place: usize, mut bytes: &[u8], depth: usize) -> Result<(), Misshapen> {
        let message = &self.schema.messages[place];
        let malformed = |what: &str| Misshapen::Malformed(format!("{what} in a {}", message.name));
        if depth > DEPTH_MAX {
            return Err(malformed("messages are nested too deep"));
        }
        self.take(message.bytes + ALLOCATION_BYTES)?;
        while !bytes.is_empty() {
            let key = varint(&mut bytes).ok_or_else(|| malformed("a field has no number"))?;
            let number = u32::try_from(key >> 3).unwrap_or(u32::MAX);
            let field = message.fields.iter().find(|(n, _)| *n == number).map(|(_, field)| *field);
            let fixed = match key & 7 {
                0 => varint(&mut bytes).map(|_| 0),
                1 => Some(8),
                2 => varint(&mut bytes).and_then(|length| usize::try_from(length).ok()),
                5 => Some(4),
                _ => return Err(malformed(&format!("field {number} has a type that is not used any more"))),
            };
            let (value, rest) = fixed
                .and_then(|length| bytes.split_at_checked(length))
                .ok_or_else(|| malformed(&format!("field {number} is cut off")))?;
            bytes = rest;
            match (field, key & 7) {
                (Some(Field::Message(inner)), 2) => self.message(inner, value, depth + 1)?,
                (Some(Field::Text), 2) => self.take(HANDLE_BYTES + ALLOCATION_BYTES + value.len())?,
                (Some(Field::Number { repeated: true, widens }), 2) => self.take(value.len() * widens)?,
                (Some(Field::Number { repeated: true, .. }), _) => self.take(NUMBER_BYTES)?,
                // The decoder refuses what has another type than its field, and passes over what it does not know.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Takes a number of variable length from the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            *bytes = &bytes[place + 1..];
            return Some(number);
        }
    }
    None
}

/// Every message under a name, those inside others among them.
fn gather<'a>(scope: &str, messages: &'a [DescriptorProto], all: &mut Vec<(String, &'a DescriptorProto)>) {
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        gather(&name, &message.nested_type, all);
        all.push((name, message));
    }
}

fn fields(descriptor: &DescriptorProto, places: &HashMap<&str, usize>) -> Vec<(u32, Field)> {
    let fields = descriptor.field.iter().map(|field| {
        let kind = match field.r#type() {
            Type::Message => Field::Message(places[field.type_name()]),
            Type::String | Type::Bytes => Field::Text,
            Type::Float | Type::Double | Type::Fixed32 | Type::Fixed64 | Type::Sfixed32 | Type::Sfixed64 => {
                Field::Number { repeated: field.label() == Label::Repeated, widens: 1 }
            }
            _ => Field::Number { repeated: field.label() == Label::Repeated, widens: NUMBER_BYTES },
        };
        (u32::try_from(field.number()).unwrap_or(u32::MAX), kind)
    });
    fields.collect()
}

/// About what a message takes in memory, without what its lists and texts hold.
fn memory_bytes(
    place: usize,
    descriptors: &[(String, &DescriptorProto)],
    places: &HashMap<&str, usize>,
    within: &mut Vec<usize>,
) -> usize {
    if within.contains(&place) {
        // It holds itself, so it stands in a box.
        return NUMBER_BYTES;
    }
    within.push(place);
    let descriptor = descriptors[place].1;
    let mut bytes = 0;
    // Only the largest member of a oneof takes its place.
    let mut members = vec![0; descriptor.oneof_decl.len()];
    for field in &descriptor.field {
        let size = match field.r#type() {
            _ if field.label() == Label::Repeated => HANDLE_BYTES,
            Type::Message => {
                NUMBER_BYTES + memory_bytes(places[field.type_name()], descriptors, places, within)
            }
            Type::String | Type::Bytes => HANDLE_BYTES,
            _ => NUMBER_BYTES,
        };
        match field.oneof_index.and_then(|index| members.get_mut(usize::try_from(index).ok()?)) {
            Some(largest) => *largest = size.max(*largest),
            None => bytes += size,
        }
    }
    bytes += members.iter().map(|size| size + NUMBER_BYTES).sum::<usize>();
    if descriptor.options.as_ref().is_some_and(|options| options.map_entry()) {
        bytes += ENTRY_BYTES;
    }
    within.pop();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    fn decoded(method: &str, bytes: &[u8], bytes_max: usize) -> Result<usize, Misshapen> {
        let schema = Schema::new();
        schema.decoded_bytes(schema.method(method).unwrap(), bytes, bytes_max)
    }

    #[test]
    fn every_message_counts_for_at_least_what_it_takes() {
        let schema = Schema::new();
        let bytes = |name: &str| schema.messages.iter().find(|m| m.name.ends_with(name)).unwrap().bytes;
        for (name, least) in [
            ("v1.Document", size_of::<proto::Document>()),
            ("v1.Value", size_of::<proto::Value>()),
            ("v1.Filter", size_of::<proto::Filter>()),
            ("v1.Condition", size_of::<proto::Condition>()),
            ("v1.Range", size_of::<proto::Range>()),
            ("v1.SearchRequest", size_of::<proto::SearchRequest>()),
            ("v1.UpsertRequest", size_of::<proto::UpsertRequest>()),
            ("v1.CreateCollectionRequest", size_of::<proto::CreateCollectionRequest>()),
            ("Document.PayloadEntry", size_of::<(String, proto::Value)>()),
        ] {
            assert!(bytes(name) >= least, "{name}: {} for {least}", bytes(name));
            assert!(bytes(name) <= 4 * least + ENTRY_BYTES, "{name}: {} for {least}", bytes(name));
        }
    }

    #[test]
    fn empty_elements_are_counted_and_not_decoded() {
        // Field 1 of a SearchBatchRequest and field 2 of an UpsertRequest, each of no bytes.
        for (method, element) in [
            ("Search/SearchBatch", &[0x0a, 0][..]),
            ("Documents/Upsert", &[0x12, 0]),
            ("Documents/Ingest", &[0x1a, 0]),
            ("Encoder/Embed", &[0x0a, 0]),
            ("Documents/Get", &[0x12, 0]),
        ] {
            let bytes = element.repeat(1_000_000);
            assert_eq!(decoded(method, &bytes, 10 << 20), Err(Misshapen::TooMuch), "{method}");
            let few = decoded(method, &element.repeat(100), 10 << 20).unwrap();
            assert!((100 * 24..100 * 1000).contains(&few), "{method}: {few}");
        }
        // A filter of a count: `and` of empty filters.
        let filters = [0x0a, 0].repeat(1_000_000);
        let filter = proto::Filter::default();
        assert!(filter.encode_to_vec().is_empty());
        let mut and = vec![0x1a];
        prost::encoding::encode_varint(filters.len() as u64, &mut and);
        and.extend(filters);
        let mut count = vec![0x12];
        prost::encoding::encode_varint(and.len() as u64, &mut count);
        count.extend(and);
        assert_eq!(decoded("Documents/Count", &count, 10 << 20), Err(Misshapen::TooMuch));
    }

    #[test]
    fn an_honest_request_counts_for_little_more_than_its_bytes() {
        let document = proto::Document {
            id: "a".into(),
            text: "x".repeat(10_000),
            vector: Some(proto::Vector { values: vec![1.0; 1000] }),
            ..Default::default()
        };
        let request = proto::UpsertRequest {
            collection: "c".into(),
            documents: vec![document; 10],
            ..Default::default()
        };
        let bytes = request.encode_to_vec();
        let memory = decoded("Documents/Upsert", &bytes, 1 << 20).unwrap();
        assert!((bytes.len()..bytes.len() * 11 / 10).contains(&memory), "{memory} for {}", bytes.len());
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        for bytes in [&[0x0a][..], &[0x0a, 5, 1], &[0xff; 11], &[0x0b], &[0x0d, 1], &[0x12, 2, 0x0a, 9]] {
            assert!(
                matches!(decoded("Documents/Upsert", bytes, 1 << 20), Err(Misshapen::Malformed(_))),
                "{bytes:?}"
            );
        }
        let mut nested = Vec::new();
        for _ in 0..200 {
            let inner = std::mem::take(&mut nested);
            nested.push(0x2a);
            prost::encoding::encode_varint(inner.len() as u64, &mut nested);
            nested.extend(inner);
        }
        let mut count = vec![0x12];
        prost::encoding::encode_varint(nested.len() as u64, &mut count);
        count.extend(nested);
        let error = decoded("Documents/Count", &count, 1 << 20).unwrap_err();
        assert!(matches!(error, Misshapen::Malformed(reason) if reason.contains("too deep")));
    }

    #[test]
    fn numbers_out_of_the_map_are_passed_over() {
        // Field 99, a varint, and field 100, a string.
        let bytes = [0x98, 0x06, 1, 0xa2, 0x06, 1, b'x'];
        decoded("Documents/Upsert", &bytes, 1 << 20).unwrap();
    }
}
