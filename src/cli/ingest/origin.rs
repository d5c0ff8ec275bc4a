//! Records which folder documents came from, so that files of two folders stay apart and documents that lost their file
//! are found.
//!
//! A document that is a whole file carries the folder it was found from in the field [`FOLDER_FIELD`], beside its `path`,
//! which is its id. A file whose id belongs to another folder is refused by name. A document without that field was
//! stored by a program that did not write it, and is taken for this folder's: its id stays the same.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tonic::{Code, Status, transport::Channel};

use super::{
    batch::{Batch, Fault, Piece},
    reading::Files,
};
use crate::{
    proto::{
        Condition, CountRequest, DeleteDocumentsRequest, Filter, FilterList, ScrollRequest, Value, ValueList,
        condition::Test, filter::Form, value::Kind,
    },
    rpc::documents_client::DocumentsClient,
};

/// Payload field with the folder that a whole file was found from: absolute, without links.
pub const FOLDER_FIELD: &str = "source_folder";
/// Payload field with the path below that folder; the reader of files writes it.
const PATH_FIELD: &str = "path";
/// The reader writes these beside the path, and few others do.
const FILE_FIELDS: [&str; 3] = [PATH_FIELD, "type", "bytes"];
/// Ids of one deletion.
const DELETED_AT_ONCE: usize = 500;
/// How often a server that is too busy is asked again, and after which time.
const RETRIES: u32 = 20;
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Documents of one collection, by where they came from.
#[derive(Debug, Clone)]
pub struct Origins {
    pub client: DocumentsClient<Channel>,
    pub collection: String,
}

impl Origins {
    /// Passes pieces on, and takes out of each batch what would replace a file of another folder. Where the collection is
    /// not `there` yet, it is made with the first batch, for which nothing needs to be asked.
    pub async fn guard(mut self, there: bool, mut from: mpsc::Receiver<Piece>, to: mpsc::Sender<Piece>) {
        let mut asks = there;
        while let Some(piece) = from.recv().await {
            let sent = match piece {
                Piece::Batch(batch) if !std::mem::replace(&mut asks, true) => {
                    to.send(Piece::Batch(batch)).await
                }
                Piece::Batch(mut batch) => match self.take_foreign(&mut batch).await {
                    Ok(faults) => {
                        let mut sent = Ok(());
                        for fault in faults {
                            sent = sent.and(to.send(Piece::Fault(fault)).await);
                        }
                        if !batch.documents.is_empty() {
                            sent = sent.and(to.send(Piece::Batch(batch)).await);
                        }
                        sent
                    }
                    Err(status) => return drop(to.send(Piece::Broken(status)).await),
                },
                other => to.send(other).await,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    async fn take_foreign(&mut self, batch: &mut Batch) -> Result<Vec<Fault>, Status> {
        let mut of_folder: HashMap<Arc<str>, Vec<String>> = HashMap::new();
        for (document, mark) in batch.documents.iter().zip(&batch.marks) {
            if let Some(folder) = &mark.folder {
                of_folder.entry(Arc::clone(folder)).or_default().push(document.id.clone());
            }
        }
        let mut foreign: HashMap<String, String> = HashMap::new();
        for (folder, ids) in of_folder {
            let values = ids.into_iter().map(text).collect();
            let filter = all(vec![
                field(PATH_FIELD, Test::In(ValueList { values })),
                field(FOLDER_FIELD, Test::Exists(true)),
                field(FOLDER_FIELD, Test::Ne(text(folder.to_string()))),
            ]);
            foreign.extend(self.matching(filter).await?);
        }
        if foreign.is_empty() {
            return Ok(Vec::new());
        }
        let mut faults = Vec::new();
        let documents = std::mem::take(&mut batch.documents);
        let marks = std::mem::take(&mut batch.marks);
        for (document, mark) in documents.into_iter().zip(marks) {
            match foreign.get(&document.id).filter(|_| mark.folder.is_some()) {
                Some(other) => {
                    let own = mark.folder.as_deref().unwrap_or_default();
                    let reason = refusal(&document.id, other, own);
                    faults.push(Fault { place: mark.place, reason, wrong_use: false });
                }
                None => {
                    batch.documents.push(document);
                    batch.marks.push(mark);
                }
            }
        }
        Ok(faults)
    }

    /// Ids of documents from this folder whose files were not found now.
    pub async fn missing(&mut self, folder: &str, files: &Files) -> Result<Vec<String>, Status> {
        let filter = field(FOLDER_FIELD, Test::Eq(text(folder.to_owned())));
        let stored = self.matching(filter).await?;
        let mut missing: Vec<String> =
            stored.into_iter().map(|(id, _)| id).filter(|id| !files.has(folder, id)).collect();
        missing.sort();
        Ok(missing)
    }

    /// The number of documents that came from this folder.
    pub async fn count_of(&mut self, folder: &str) -> Result<u64, Status> {
        self.count(field(FOLDER_FIELD, Test::Eq(text(folder.to_owned())))).await
    }

    /// The number of whole files that were stored without their folder.
    pub async fn without_folder(&mut self) -> Result<u64, Status> {
        let mut conditions: Vec<Filter> =
            FILE_FIELDS.iter().map(|name| field(name, Test::Exists(true))).collect();
        conditions.push(field(FOLDER_FIELD, Test::Exists(false)));
        self.count(all(conditions)).await
    }

    /// The number of these documents that existed.
    pub async fn delete(&mut self, ids: Vec<String>) -> Result<u64, Status> {
        let mut deleted = 0;
        for some in ids.chunks(DELETED_AT_ONCE) {
            let request = DeleteDocumentsRequest {
                collection: self.collection.clone(),
                ids: some.to_vec(),
                ..Default::default()
            };
            deleted += self.client.delete(request).await?.into_inner().deleted;
        }
        Ok(deleted)
    }

    async fn count(&mut self, filter: Filter) -> Result<u64, Status> {
        let request = CountRequest { collection: self.collection.clone(), filter: Some(filter) };
        Ok(self.client.count(request).await?.into_inner().documents)
    }

    /// Ids that meet a condition, each with its folder. None where there is no such collection.
    async fn matching(&mut self, filter: Filter) -> Result<Vec<(String, String)>, Status> {
        let mut request = ScrollRequest {
            collection: self.collection.clone(),
            filter: Some(filter),
            without_text: true,
            ..Default::default()
        };
        let mut found = Vec::new();
        let mut retries = 0;
        loop {
            let page = match self.client.scroll(request.clone()).await {
                Ok(page) => page.into_inner(),
                Err(status) if status.code() == Code::ResourceExhausted && retries < RETRIES => {
                    retries += 1;
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
                Err(status) if nothing_of_ours(&status) => return Ok(found),
                Err(status) => return Err(status),
            };
            for stored in page.documents {
                let document = stored.document.unwrap_or_default();
                let folder = match document.payload.get(FOLDER_FIELD).and_then(|v| v.kind.as_ref()) {
                    Some(Kind::String(folder)) => folder.clone(),
                    _ => String::new(),
                };
                found.push((document.id, folder));
            }
            if page.next_cursor.is_empty() {
                return Ok(found);
            }
            request.cursor = page.next_cursor;
        }
    }
}

/// No collection, or one whose fields of these names are of other types.
fn nothing_of_ours(status: &Status) -> bool {
    match status.code() {
        Code::NotFound => true,
        Code::InvalidArgument => status.message().contains("filter on field"),
        _ => false,
    }
}

fn refusal(id: &str, other: &str, own: &str) -> String {
    let name = own.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or("other");
    format!(
        "the collection has a document {id:?} from {other}; to keep both give --id-prefix {name}, \
         to replace it (if that folder was moved here) --take-over"
    )
}

fn text(text: String) -> Value {
    Value { kind: Some(Kind::String(text)) }
}

/// A folder as a payload value.
pub fn folder_value(folder: &str) -> Value {
    text(folder.to_owned())
}

fn field(name: &str, test: Test) -> Filter {
    Filter { form: Some(Form::Condition(Condition { field: name.to_owned(), test: Some(test) })) }
}

fn all(filters: Vec<Filter>) -> Filter {
    Filter { form: Some(Form::And(FilterList { filters })) }
}
