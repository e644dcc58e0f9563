//! Questions and answers over one stream: to whom, in which order, and what follows when it ends.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use tokio::sync::Notify;
use tonic::Streaming;

use super::*;
use crate::wire::manager::raft_client::RaftClient;
use crate::wire::manager::raft_server::{Raft, RaftServer};
use crate::wire::manager::{RaftMessage, SnapshotChunk};

/// A question that the member answers when it is told to.
const STUCK: u64 = 100;
/// One that it refuses.
const REFUSED: u64 = 200;

/// A clock that is set, for what is counted in minutes.
#[derive(Debug, Default)]
struct SetClock {
    system: SystemClock,
    seconds: AtomicU64,
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        self.system.now()
    }

    fn instant(&self) -> Instant {
        Instant(Duration::from_secs(self.seconds.load(Ordering::SeqCst)))
    }

    fn sleep(
        &self,
        duration: Duration,
    ) -> std::pin::Pin<Box<dyn std::future::Future<Output = ()> + Send>> {
        self.system.sleep(duration)
    }
}

/// A member that gives every question back.
#[derive(Clone, Debug, Default)]
struct Echo {
    clock: Arc<SetClock>,
    /// It is of a release that does not know the stream.
    is_old: Arc<AtomicBool>,
    streams: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
    go_on: Arc<Notify>,
    heard: Arc<Mutex<Vec<u64>>>,
}

impl Echo {
    fn counts(&self) -> (u64, u64) {
        (self.streams.load(Ordering::SeqCst), self.calls.load(Ordering::SeqCst))
    }

    async fn answer(self, question: RaftMessage) -> Result<RaftMessage, Status> {
        self.heard.lock().unwrap().push(question.target);
        match question.target {
            STUCK => self.go_on.notified().await,
            REFUSED => return Err(Status::failed_precondition("not this")),
            _ => {}
        }
        Ok(question)
    }
}

#[async_trait]
impl Raft for Echo {
    type HeartbeatsStream = Answers<RaftMessage>;

    async fn heartbeats(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        self.streams.fetch_add(1, Ordering::SeqCst);
        if self.is_old.load(Ordering::SeqCst) {
            return Err(Status::permission_denied("there is no such call"));
        }
        let (echo, clock) = (self.clone(), Arc::clone(&self.clock));
        let answer = move |question| echo.clone().answer(question);
        Ok(Response::new(answers(request.into_inner(), clock, answer)))
    }

    async fn append(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.clone().answer(request.into_inner()).await.map(Response::new)
    }

    async fn vote(&self, _: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn transfer_leader(
        &self,
        _: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn snapshot(
        &self,
        _: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

struct Asking {
    channels: Channels,
    addr: SocketAddr,
}

#[async_trait]
impl Ways for Asking {
    type Question = RaftMessage;
    type Answer = RaftMessage;

    async fn open(
        &self,
        questions: Questions<RaftMessage>,
    ) -> Result<Response<Streaming<RaftMessage>>, Status> {
        RaftClient::new(self.channels.lane(self.addr, Lane::Raft)).heartbeats(questions).await
    }

    async fn call(&self, question: RaftMessage) -> Result<Response<RaftMessage>, Status> {
        RaftClient::new(self.channels.lane(self.addr, Lane::Raft)).append(question).await
    }
}

/// Such a member, and a manager that asks it.
struct Pair {
    harness: Harness,
    echo: Echo,
    channels: Channels,
    addr: SocketAddr,
    clock: Arc<SetClock>,
}

impl Pair {
    async fn start(limits: Limits) -> Self {
        let (harness, echo) = (Harness::start(Limits::default()).await, Echo::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = Serving {
            identity: harness.identity(101, Role::Manager),
            roster: Arc::clone(&harness.roster) as Arc<dyn Roster>,
            routes: Routes::new(RaftServer::new(echo.clone())),
            env: harness.env.clone(),
            limits,
        };
        let scope = harness.server.clone();
        harness.server.spawn("member", async move { drop(serve(listener, serving, &scope).await) });
        let channels = harness.channels(&harness.identity(2, Role::Manager));
        Self { harness, echo, channels, addr, clock: Arc::default() }
    }

    fn dialogue(&self) -> Dialogue<Asking> {
        let ways = Asking { channels: self.channels.clone(), addr: self.addr };
        Dialogue::new(ways, Arc::clone(&self.clock) as Arc<dyn Clock>)
    }
}

async fn ask(dialogue: &mut Dialogue<Asking>, number: u64) -> Result<u64, Status> {
    let question = RaftMessage { target: number, payload: Bytes::new() };
    soon(dialogue.ask(question)).await.map(|answer| answer.target)
}

#[tokio::test]
async fn questions_go_over_one_stream_in_their_order() {
    let pair = Pair::start(Limits::default()).await;
    let mut dialogue = pair.dialogue();
    for number in 0..20 {
        assert_eq!(ask(&mut dialogue, number).await.unwrap(), number);
    }
    assert_eq!(pair.echo.counts(), (1, 0));
    assert_eq!(*pair.echo.heard.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_late_answer_is_nobodys_and_a_stuck_dialogue_holds_up_no_other() {
    let pair = Pair::start(Limits::default()).await;
    let (mut stuck, mut other) = (pair.dialogue(), pair.dialogue());
    assert_eq!(ask(&mut stuck, 1).await.unwrap(), 1);
    let question = RaftMessage { target: STUCK, payload: Bytes::new() };
    let others = async {
        for number in 2..10 {
            assert_eq!(ask(&mut other, number).await.unwrap(), number);
        }
    };
    tokio::select! {
        biased;
        answer = stuck.ask(question) => panic!("{answer:?}"),
        () = others => {}
    }
    pair.echo.go_on.notify_one();
    for number in 10..15 {
        assert_eq!(ask(&mut stuck, number).await.unwrap(), number);
    }
    assert_eq!(pair.echo.counts(), (3, 0), "the one that owed an answer was given up");
}

#[tokio::test]
async fn what_is_refused_is_told_and_the_next_question_is_answered() {
    let pair = Pair::start(Limits::default()).await;
    let mut dialogue = pair.dialogue();
    for number in [1, 2] {
        assert_eq!(ask(&mut dialogue, number).await.unwrap(), number);
        let refusal = ask(&mut dialogue, REFUSED).await.unwrap_err();
        assert_eq!(
            (refusal.code(), refusal.message()),
            (tonic::Code::FailedPrecondition, "not this")
        );
    }
}

#[tokio::test]
async fn a_stream_that_breaks_costs_no_answer() {
    let limits = Limits { sweep: Duration::from_millis(20), ..Limits::default() };
    let pair = Pair::start(limits).await;
    let mut dialogue = pair.dialogue();
    assert_eq!(ask(&mut dialogue, 1).await.unwrap(), 1);
    let mut state = pair.channels.connection(pair.addr, Lane::Raft);
    pair.harness.roster.removed.lock().unwrap().insert(node(2));
    soon(state.wait_for(|state| *state != ConnectionState::Connected)).await.unwrap();
    pair.harness.roster.removed.lock().unwrap().clear();
    assert_eq!(ask(&mut dialogue, 2).await.unwrap(), 2);
    assert_eq!(pair.echo.counts(), (2, 0));
}

#[tokio::test]
async fn a_release_that_does_not_know_the_stream_is_called_until_it_does() {
    let pair = Pair::start(Limits::default()).await;
    let mut dialogue = pair.dialogue();
    pair.echo.is_old.store(true, Ordering::SeqCst);
    for number in 0..5 {
        assert_eq!(ask(&mut dialogue, number).await.unwrap(), number);
    }
    assert_eq!(pair.echo.counts(), (1, 5), "it is not asked for the stream every time");
    pair.echo.is_old.store(false, Ordering::SeqCst);
    pair.clock.seconds.store(11, Ordering::SeqCst);
    for number in 0..5 {
        assert_eq!(ask(&mut dialogue, number).await.unwrap(), number);
    }
    assert_eq!(pair.echo.counts(), (2, 5));
}

#[tokio::test]
async fn who_asks_for_long_passes_the_gate_again() {
    let pair = Pair::start(Limits::default()).await;
    let mut dialogue = pair.dialogue();
    assert_eq!(ask(&mut dialogue, 1).await.unwrap(), 1);
    pair.echo.clock.seconds.store(61, Ordering::SeqCst);
    assert_eq!(ask(&mut dialogue, 2).await.unwrap(), 2);
    assert_eq!(pair.echo.counts(), (2, 0), "the gate lets it in again");
    assert_eq!(*pair.echo.heard.lock().unwrap(), [1, 2], "no question is answered twice");
    pair.harness.roster.demoted.lock().unwrap().insert(node(2));
    pair.echo.clock.seconds.store(122, Ordering::SeqCst);
    let refusal = ask(&mut dialogue, 3).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
    assert_eq!(*pair.echo.heard.lock().unwrap(), [1, 2]);
}
