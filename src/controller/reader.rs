//! What others of this process may read of the index, which one task owns.

use tokio::sync::{mpsc, oneshot};

use super::index::Index;
use super::plan::Policies;
use crate::render::Snapshot;

/// Questions that wait for their turn; beyond that those who ask wait.
const WAITING: usize = 64;

/// Asks for what is known of namespaces. Clones ask the same controller.
#[derive(Clone, Debug)]
pub struct Reader(mpsc::Sender<Question>);

/// The other end: where the index is.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

/// What somebody wants to know.
#[derive(Debug)]
pub(super) struct Question {
    namespace: String,
    wanted: Vec<String>,
    answer: oneshot::Sender<Option<Snapshot>>,
}

impl Reader {
    /// A reader, and what a controller answers it by.
    #[must_use]
    pub fn new() -> (Self, Questions) {
        let (ask, questions) = mpsc::channel(WAITING);
        (Self(ask), Questions(questions))
    }

    /// What is known of a namespace, with who holds the names of its rules and these further ones; `None` until the
    /// caches are filled, and once the controller has ended.
    pub async fn read(&self, namespace: String, wanted: Vec<String>) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Question { namespace, wanted, answer }).await.ok()?;
        answered.await.ok().flatten()
    }
}

impl Questions {
    pub(super) async fn next(&mut self) -> Option<Question> {
        self.0.recv().await
    }

    /// Answers from an index that does not change any more, until nobody asks any more.
    pub(super) async fn rest(mut self, index: Index, policies: Policies) {
        while let Some(question) = self.next().await {
            question.answer(Some(&index), &policies);
        }
    }
}

impl Question {
    /// Answers; without an index, that nothing is known.
    pub fn answer(self, index: Option<&Index>, policies: &Policies) {
        let wanted: Vec<&str> = self.wanted.iter().map(String::as_str).collect();
        let snapshot = index.map(|index| index.snapshot(&self.namespace, &wanted, policies));
        // Whoever asked may have given up.
        let _gone = self.answer.send(snapshot);
    }
}
