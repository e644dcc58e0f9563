//! Questions and answers over one lasting stream, where there would be a call for each.
//!
//! ```text
//!   ask ─▶ question ─▶ [stream] ─▶ the handler of the other side
//!    ▲                                  │
//!    └────────── answer ◀───────────────┘     one at a time, so answers need no numbers
//! ```
//!
//! A call has headers both ways, a stream of HTTP/2 and the gate to itself; what is asked several times a
//! second for months needs them once. A stream that owes an answer when nobody waits for it any more,
//! that breaks or that ends is dropped, and the next question opens another, so that nothing is ever
//! taken for the answer to something else. The side that answers ends it after a while ([`LIFE`]): whoever
//! asks passes the gate again. Sets no time limits but that one: who asks does.
//!
//! A release that does not know the stream answers calls ([`Ways::call`]).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use futures::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use crate::env::{Clock, Instant};

/// A stream is answered for so long. What the gate found when it was opened may have changed since:
/// a certificate ran out, a manager is none any more.
const LIFE: Duration = Duration::from_secs(60);
/// Who does not know the stream is asked for it again after this: it may have been upgraded.
const ABSENT: Duration = Duration::from_secs(10);

/// What a stream of questions is made of.
pub type Questions<Q> = ReceiverStream<Q>;
/// What a handler answers a stream of questions with.
pub type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

/// The two ways to ask.
#[async_trait]
pub trait Ways: Send + Sync {
    /// What is asked. Asking it twice does no harm.
    type Question: Clone + Send + 'static;
    /// What is answered.
    type Answer: Send + 'static;

    /// Opens a stream.
    async fn open(
        &self,
        questions: Questions<Self::Question>,
    ) -> Result<Response<Streaming<Self::Answer>>, Status>;

    /// Asks by a call of its own.
    async fn call(&self, question: Self::Question) -> Result<Response<Self::Answer>, Status>;
}

/// The side that asks.
pub struct Dialogue<W: Ways> {
    ways: W,
    clock: Arc<dyn Clock>,
    stream: Option<Open<W>>,
    absent_until: Instant,
}

struct Open<W: Ways> {
    questions: mpsc::Sender<W::Question>,
    answers: Streaming<W::Answer>,
}

impl<W: Ways> fmt::Debug for Dialogue<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialogue").field("is_open", &self.stream.is_some()).finish_non_exhaustive()
    }
}

impl<W: Ways> Dialogue<W> {
    /// Opens nothing before the first question.
    pub fn new(ways: W, clock: Arc<dyn Clock>) -> Self {
        Self { ways, clock, stream: None, absent_until: Instant::default() }
    }

    /// The two ways.
    pub const fn ways(&self) -> &W {
        &self.ways
    }

    /// Asks, and waits for the answer for as long as the caller does.
    ///
    /// # Errors
    /// What the other side said, or that it cannot be reached.
    pub async fn ask(&mut self, question: W::Question) -> Result<W::Answer, Status> {
        // It is put back with the answer: if nobody waits for that, it is dropped.
        if let Some(mut open) = self.stream.take()
            && let Some(answer) = open.ask(question.clone()).await
        {
            self.stream = Some(open);
            return Ok(answer);
        }
        if self.clock.instant() < self.absent_until {
            return self.ways.call(question).await.map(Response::into_inner);
        }
        // There is room for one, the first.
        let (questions, asked) = mpsc::channel(1);
        questions
            .try_send(question.clone())
            .map_err(|error| Status::internal(error.to_string()))?;
        let answers = match self.ways.open(ReceiverStream::new(asked)).await {
            Ok(response) => response.into_inner(),
            // The gate of a release that does not know it refuses it like anything else it does not know.
            Err(status)
                if matches!(status.code(), Code::Unimplemented | Code::PermissionDenied) =>
            {
                let answer = self.ways.call(question).await?;
                self.absent_until = self.clock.instant().after(ABSENT);
                return Ok(answer.into_inner());
            }
            Err(status) => return Err(status),
        };
        let mut open = Open { questions, answers };
        let answer = open.answers.message().await?;
        let answer = answer.ok_or_else(|| Status::unavailable("the stream ended at once"))?;
        self.stream = Some(open);
        Ok(answer)
    }
}

impl<W: Ways> Open<W> {
    /// `None` when the stream has ended or broken: why will show when another one is opened.
    async fn ask(&mut self, question: W::Question) -> Option<W::Answer> {
        self.questions.send(question).await.ok()?;
        self.answers.message().await.ok()?
    }
}

/// The side that answers: the questions of a stream, one after the other. An error is the last answer.
pub fn answers<Q, A, F, Fut>(
    questions: Streaming<Q>,
    clock: Arc<dyn Clock>,
    answer: F,
) -> Answers<A>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Fn(Q) -> Fut + Send + 'static,
    Fut: Future<Output = Result<A, Status>> + Send + 'static,
{
    let ends = clock.instant().after(LIFE);
    Box::pin(stream::unfold(Some((questions, answer)), move |state| {
        let clock = Arc::clone(&clock);
        async move {
            let (mut questions, answer) = state?;
            let question = questions.message().await.ok()??;
            if clock.instant() >= ends {
                return None;
            }
            let answered = answer(question).await;
            let rest = answered.is_ok().then_some((questions, answer));
            Some((answered, rest))
        }
    }))
}
