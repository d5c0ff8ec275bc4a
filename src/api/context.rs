//! What a method knows of its call, and the bounds of every call: its deadline and the size of its answer.

use std::{fmt::Debug, sync::Arc, time::Instant};

use prost::Message;

use super::ApiError;
use crate::{
    aside::aside,
    budget::{BudgetError, Room},
    engine::{Caller, DocumentOutcome, Engine, EngineError},
};

/// What is counted while requests are worked on. A door that shows metrics implements it.
pub(crate) trait Counts: Debug + Send + Sync {
    /// A document was written, or found unchanged.
    fn document(&self, outcome: &DocumentOutcome);

    /// A document of an ingest failed.
    fn document_failed(&self);

    /// Texts were encoded for a request that stores nothing.
    fn encoded(&self, texts: u64, tokens: u64);
}

/// What a method knows of its call. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) engine: Arc<Engine>,
    pub(crate) counts: Arc<dyn Counts>,
    /// Names the request in the log and in what its client hears of a failure.
    pub(crate) request_id: Arc<str>,
    /// Until when the answer is worth its cost.
    pub(crate) deadline: Instant,
    /// A number for the client: clients take turns at the encoder.
    pub(crate) client: u64,
    /// About what the request takes in memory, in bytes; 0 if nobody weighed it.
    pub(crate) request_bytes: usize,
    /// Where the answer takes its place while it is made. It also says how many bytes the answer may have.
    pub(crate) room: Arc<Room>,
}

impl Context {
    /// Calls `method`, no longer than the deadline. The one way in for every door.
    ///
    /// # Errors
    /// [`EngineError::Expired`]; [`BudgetError::AnswerTooLarge`] for an answer that no client would take; those of the
    /// method.
    pub(crate) async fn call<Q, A: Message, F>(
        self,
        method: impl FnOnce(Context, Q) -> F,
        request: Q,
    ) -> Result<A, ApiError>
    where
        F: Future<Output = Result<A, ApiError>>,
    {
        let (deadline, room) = (self.deadline, Arc::clone(&self.room));
        bounded(deadline, &room, method(self, request)).await
    }

    /// For the engine.
    pub(super) fn caller(&self) -> Caller {
        Caller { deadline: Some(self.deadline), client: self.client, ..Caller::default() }
    }

    /// Makes of a request what the engine takes, which is much work if the request is large. Every method reads its request
    /// by this, whatever is in it.
    pub(super) fn read<T>(&self, f: impl FnOnce() -> T) -> T {
        aside(self.request_bytes, f)
    }

    /// Makes the response of an answer, which is large if much was counted for it.
    pub(super) fn convert<T>(&self, f: impl FnOnce() -> T) -> T {
        aside(self.room.answer_bytes(), f)
    }
}

/// Waits for `work`, no longer than `deadline`; an answer larger than `room` may become is a refusal.
pub(super) async fn bounded<T: Message>(
    deadline: Instant,
    room: &Room,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let answer = tokio::time::timeout_at(deadline.into(), work)
        .await
        .unwrap_or_else(|_| Err(EngineError::Expired.into()))?;
    let limit = room.answer_bytes_max();
    if aside(room.answer_bytes(), || answer.encoded_len()) > limit {
        return Err(BudgetError::AnswerTooLarge { limit }.into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use syn::visit::Visit;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        budget::Budget,
        error::{ErrorKind, Fault as _},
        proto,
    };

    fn room() -> Arc<Room> {
        Room::new(1 << 10, &Budget::new(1 << 20))
    }

    #[tokio::test]
    async fn work_past_the_deadline_is_dropped_and_answered_as_timeout() {
        let (alive, dropped) = oneshot::channel::<()>();
        let work = async move {
            let _alive = alive;
            std::future::pending::<Result<proto::CountResponse, ApiError>>().await
        };
        let deadline = Instant::now() + Duration::from_millis(5);
        let error = bounded(deadline, &room(), work).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(dropped.await.is_err(), "the work outlived its deadline");
    }

    #[tokio::test]
    async fn an_answer_over_the_message_limit_is_refused() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let answer = proto::SetAliasResponse { previous: "x".repeat(2000) };
        let error = bounded(deadline, &room(), async { Ok(answer) }).await.unwrap_err();
        assert!(error.is_too_large() && error.to_string().contains("ask for less"), "{error}");
    }

    /// What a file of methods makes of requests by `convert` and not within [`Context::read`].
    struct Unread(Vec<String>);

    impl<'ast> Visit<'ast> for Unread {
        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            if call.method == "read" {
                self.visit_expr(&call.receiver);
            } else {
                syn::visit::visit_expr_method_call(self, call);
            }
        }

        fn visit_path(&mut self, path: &'ast syn::Path) {
            let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            if let [module, name] = names.as_slice()
                && module == "convert"
                && name.contains("_from")
            {
                self.0.push(name.clone());
            }
        }
    }

    #[test]
    fn every_method_reads_its_request_beside_the_async_threads() {
        let unread = |text: &str| {
            let mut unread = Unread(Vec::new());
            unread.visit_file(&syn::parse_file(text).unwrap());
            unread.0
        };
        assert_eq!(unread("fn f() { let x = convert::filter_from(x)?; }"), ["filter_from"]);
        assert_eq!(
            unread("fn f() { xs.map(convert::filter_from); c.read(|| convert::filter_from(x)) }").len(),
            1
        );
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api")).unwrap();
        let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
        let faults: Vec<String> = files
            .flat_map(|path| {
                let text = std::fs::read_to_string(&path).unwrap();
                unread(&text).into_iter().map(move |name| format!("{}: {name}", path.display()))
            })
            .collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
