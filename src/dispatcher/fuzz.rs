//! The fuzz tests' way to sessions: an agent that says whatever it likes.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Dispatcher, OUTBOX, Settings, session, start};
use crate::domain::cluster::Authority;
use crate::domain::node::Role;
use crate::domain::timing::Timing;
use crate::domain::{Cluster, ClusterId, NodeId};
use crate::env::{Env, Scope};
use crate::identity::{NodeIdentity, authority};
use crate::leader::{Dial, GrpcLeases, LeaseTable, Leases};
use crate::raft::Store;
use crate::state::{Change, Expect, Object, View};
use crate::wire::node::agent_message::Kind;
use crate::wire::node::{AgentMessage, Hello};

/// How long the agent stays after its last word. The clock of a run is not the machine's.
const STAY: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(1);

/// A whole session of a worker with what it says, in a cluster that has `objects`. Whatever it is, the agent
/// changes its own node and the statuses of its own tasks, and nothing else. Returns what came of it.
pub(crate) fn session(node: NodeId, messages: Vec<AgentMessage>, objects: Vec<Object>) -> View {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let (env, scope) = (Env::system(), Scope::root("fuzz"));
        let store = Store::in_memory(env.clone());
        let put = |object| Change::Put { object: with_authority(object), expect: Expect::Any };
        let puts = objects.into_iter().map(put);
        store.propose(None, puts.collect(), LIMIT).await.unwrap();
        let before = store.view();
        drop(talk(&env, &store, &scope, node, messages).await);
        let after = store.view();
        for was in before.objects() {
            match (&was, after.object(&was.key())) {
                (Object::Node(was), Some(Object::Node(is))) if was.id == node => {
                    assert_eq!((&was.spec, was.certified), (&is.spec, is.certified));
                    assert_eq!(was.manager, is.manager);
                }
                (Object::Task(was), Some(Object::Task(is))) if was.node == Some(node) => {
                    let joined = was.status.clone().join(is.status.clone());
                    assert_eq!(joined, is.status, "a status went back");
                    let rest = |task: &crate::domain::Task| crate::domain::Task {
                        status: was.status.clone(),
                        meta: was.meta,
                        ..task.clone()
                    };
                    assert_eq!(rest(&is), rest(was));
                }
                (_, is) => assert_eq!(Some(was), is, "an agent changed what is not its own"),
            }
        }
        assert_eq!(before.objects().count(), after.objects().count());
        scope.shutdown(LIMIT).await;
        after
    })
}

/// A cluster that can sign.
fn with_authority(object: Object) -> Object {
    static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
        authority::create(ClusterId::from_bytes([1; 16]), Env::system().clock.now()).unwrap()
    });
    match object {
        Object::Cluster(cluster) => {
            let authority = AUTHORITY.clone();
            Object::Cluster(Arc::new(Cluster { authority, ..(*cluster).clone() }))
        }
        other => other,
    }
}

async fn talk(
    env: &Env,
    store: &Store,
    scope: &Scope,
    node: NodeId,
    messages: Vec<AgentMessage>,
) -> Dispatcher {
    // Nobody takes leases here; that must not be what ends the session.
    let timing = Timing { leaderless_max: STAY * 2, ..Timing::DEFAULT };
    let nowhere = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let dial: Dial = Arc::new(move |_| nowhere.clone());
    let link = Arc::new(GrpcLeases::new(Arc::clone(&dial), Arc::clone(&env.clock)));
    let leases = Leases::new(env.clone(), store.clone(), LeaseTable::new(timing.lease), link);
    let settings = Settings { node: NodeId::from_bytes([99; 16]), timing, dial };
    let dispatcher = start(settings, env, store, leases, scope);
    let (outbox, mut replies) = mpsc::channel(OUTBOX);
    let peer = NodeIdentity { cluster: ClusterId::from_bytes([1; 16]), node, role: Role::Worker };
    let session = session::Session::new(Arc::clone(&dispatcher.shared), peer, outbox);
    let (say, inbox) = mpsc::channel(1);
    let agent = async {
        for message in messages {
            if say.send(Ok(message)).await.is_err() {
                break;
            }
        }
        env.clock.sleep(STAY).await;
        drop(say);
    };
    let listens = async { while replies.recv().await.is_some() {} };
    tokio::join!(session.run(ReceiverStream::new(inbox)), agent, listens);
    dispatcher
}

/// A session that was closed says that the host lives, and keeps its tasks for ten seconds; one that fell
/// silent says nothing.
#[tokio::test(start_paused = true)]
async fn silence_is_not_told_as_a_session_that_was_closed() {
    let node = NodeId::from_bytes([4; 16]);
    let hello = Hello { description_json: b"{}".to_vec().into(), ..Hello::default() };
    let hello =
        AgentMessage { kind: Some(Kind::Hello(Hello { addr: vec![10, 0, 0, 1].into(), ..hello })) };
    let (env, scope) = (Env::system(), Scope::root("test"));
    let store = Store::in_memory(env.clone());
    let dispatcher = talk(&env, &store, &scope, node, vec![hello]).await;
    let told = dispatcher.shared.beats.batch(env.clock.instant());
    assert!(told.is_empty(), "{told:?}");
    scope.shutdown(LIMIT).await;
}
