//! Putting a member together from its folder: log, snapshots, openraft, routines.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use super::Error;
use super::handle::{Handle, Settings};
use super::inbound::{Heard, Inbound};
use super::log::{Log, Place};
use super::machine::Machine;
use super::peer::{Network, PeerLink};
use super::proposer::{self, Proposal, Proposer, Stamps};
use super::pulse::Pulse;
use super::replica::{self, Local, ReadWaiter, Reader};
use super::snapshots::Snapshots;
use super::space::Space;
use super::store::{Leadership, Store};
use super::types::{Executor, Raft};
use super::vigil::Vigil;
use super::watchdog::Watchdog;
use super::watcher::{Members, Successor, Watcher};
use crate::domain::RaftId;
use crate::env::disk::OpenError;
use crate::env::{Env, Scope};

/// openraft looks at its timers about five times in so many heartbeats. All that is left for it to find
/// is that an election is due, after more than a second.
const LOOKS_PACE: u32 = 2;
/// How long another process may take to let go of the log.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Starts a member from what its folder holds. A new one waits to be added by a leader, or for
/// [`Handle::bootstrap`].
///
/// # Errors
/// [`Error`]; after [`Error::Corrupt`] this member must not be started again with this folder.
pub async fn start(
    settings: Settings,
    env: Env,
    link: Arc<dyn PeerLink>,
    scope: &Scope,
) -> Result<Handle, Error> {
    let scope = scope.child("raft");
    let stored = |error| Error::io("the folder of the raft log", error);
    env.device.private_dir(&settings.dir).map_err(stored)?;
    let space = Arc::new(Space::new(&settings.dir, &env));
    space.look();
    let (log, closed) = open_log(&settings, &env, &scope).await?;
    let machine = open_machine(&settings, &env, &scope, &log)?;
    let config = Arc::new(config(&settings)?);
    let network = Network { link: Arc::clone(&link), beat_limit: settings.timing.raft_heartbeat };
    // What openraft draws at random follows from this number, and so does what its routines draw.
    let raft = Raft::new(settings.raft_id.0, config, network, log.clone(), machine.clone());
    let raft = Executor::scope(env.entropy.number(), raft)
        .await
        .map_err(|error| Error::Stopped(error.to_string()))?;
    elect_if_alone(&raft, settings.raft_id).await;
    let (proposals, proposal_queue) = mpsc::channel(proposer::QUEUE);
    let (reads, read_queue) = mpsc::channel(replica::READS);
    let (members, members_seen) = watch::channel(Members::default());
    let local = Arc::new(Local {
        me: settings.raft_id,
        env: env.clone(),
        machine,
        link,
        leadership: watch::Sender::new(Leadership::default()),
        proposals,
        reads,
    });
    let heard = Arc::new(Heard::new(&env));
    let inbound = Inbound { raft: raft.clone(), local: Arc::clone(&local), space, heard };
    let vigil = log.vigil();
    let queues = Queues { proposals: proposal_queue, reads: read_queue, members, vigil };
    spawn(&inbound, queues, &settings, &scope);
    scope.spawn("compact", compact(raft, log.clone(), env, settings.compaction.bytes));
    let store = Store::new(local);
    Ok(Handle::new(settings, (store, inbound), members_seen, scope, (log, closed)))
}

/// The only voter need not wait whether somebody else leads.
async fn elect_if_alone(raft: &Raft, me: RaftId) {
    let is_alone = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().eq([me.0])
    };
    if is_alone && let Err(error) = raft.trigger().elect(false).await {
        tracing::warn!(%error, "no candidacy");
    }
}

/// The ends that the routines work on.
struct Queues {
    proposals: mpsc::Receiver<Proposal>,
    reads: mpsc::Receiver<ReadWaiter>,
    members: watch::Sender<Members>,
    vigil: Arc<Vigil>,
}

/// Starts the routines.
fn spawn(inbound: &Inbound, queues: Queues, settings: &Settings, scope: &Scope) {
    let Inbound { raft, local, space, heard } = inbound.clone();
    let (me, env) = (local.me, local.env.clone());
    let proposer = Proposer {
        me,
        raft: raft.clone(),
        machine: local.machine.clone(),
        env: env.clone(),
        space: Arc::clone(&space),
        queue: queues.proposals,
        time: Stamps::default(),
        vigil: Arc::clone(&queues.vigil),
    };
    scope.spawn("propose", proposer.run());
    let patience = settings.timing.election_max * 4;
    let reader =
        Reader { local: Arc::clone(&local), raft: raft.clone(), queue: queues.reads, patience };
    scope.spawn("read", reader.run());
    let every = settings.timing.raft_heartbeat;
    scope.spawn("pulse", Pulse { me, raft: raft.clone(), env: env.clone(), every }.run());
    let watchdog = Watchdog::new(raft.clone(), env.clone(), queues.vigil, Arc::clone(&space));
    let successor = Successor {
        me,
        raft: raft.clone(),
        env: env.clone(),
        link: Arc::clone(&local.link),
        leadership: local.leadership.subscribe(),
        may_stand: watchdog.may_stand(),
    };
    scope.spawn("succeed", successor.run());
    let watcher = Watcher {
        me,
        raft,
        machine: local.machine.clone(),
        env: env.clone(),
        timing: settings.timing,
        heard,
        leadership: local.leadership.clone(),
        members: queues.members,
        watchdog,
    };
    scope.spawn("watch", watcher.run());
    scope.spawn("space", space.watch(env, scope.clone()));
}

/// The state machine; the log must go on where its snapshot ends.
pub(super) fn open_machine(
    settings: &Settings,
    env: &Env,
    scope: &Scope,
    log: &Log,
) -> Result<Machine, Error> {
    let dir = settings.dir.join("snapshots");
    let snapshots = Snapshots::open(dir, &settings.key, env)?;
    let machine = Machine::open(snapshots, scope.clone(), env.clone())?;
    if log.purged().map(|id| id.index) > machine.last().map(|id| id.index) {
        let what = "the snapshot that the log builds on is gone".to_owned();
        return Err(Error::Corrupt { dir: settings.dir.clone(), what });
    }
    // openraft would stop at it without a word of what to do.
    let newer = log.newer(machine.last().map(|id| id.index));
    match newer.map_err(|error| Error::io("the raft log", error))? {
        Some(what) => Err(Error::Newer { dir: settings.dir.clone(), what }),
        None => Ok(machine),
    }
}

/// Opens the log; another process may still be letting go of it.
pub(super) async fn open_log(
    settings: &Settings,
    env: &Env,
    scope: &Scope,
) -> Result<(Log, oneshot::Receiver<()>), Error> {
    let until = env.clock.instant().after(LOCK_PATIENCE);
    loop {
        let (dir, key, raft_id) = (settings.dir.clone(), settings.key, settings.raft_id.0);
        let (world, writers) = (env.clone(), scope.clone());
        let opened = scope
            .blocking(move || {
                let opened = world.device.open_log(&dir.join("log"));
                let disk = opened.map_err(|error| match error {
                    OpenError::Locked => Error::Locked { dir: dir.clone() },
                    OpenError::Damaged(what) => Error::Corrupt { dir: dir.clone(), what },
                    OpenError::Io(error) => Error::io("the raft log", error),
                })?;
                Log::open(&world, &writers, disk, &Place { dir: &dir, key: &key, raft_id })
            })
            .await;
        match opened {
            Some(Err(Error::Locked { .. })) if env.clock.instant() < until => {
                env.clock.sleep(Duration::from_millis(50)).await;
            }
            Some(result) => return result,
            None => {
                let what = "the database cannot be read".to_owned();
                return Err(Error::Corrupt { dir: settings.dir.clone(), what });
            }
        }
    }
}

/// Keeps the log short when its entries are large; openraft counts them only.
async fn compact(raft: Raft, log: Log, env: Env, limit: usize) {
    let mut asked_at = 0;
    loop {
        env.clock.sleep(Duration::from_secs(1)).await;
        let bytes = log.bytes();
        if bytes < limit {
            asked_at = 0;
            continue;
        }
        let snapshot = raft.metrics().borrow_watched().snapshot.map_or(0, |id| id.index);
        let purged = log.purged().map_or(0, |id| id.index);
        let done = if snapshot > purged && asked_at != 0 {
            raft.trigger().purge_log(snapshot).await
        } else {
            asked_at = bytes;
            raft.trigger().snapshot().await
        };
        if done.is_err() {
            return;
        }
    }
}

/// openraft's settings. It sends no heartbeats by itself (`pulse`); their pace is that of its timers, five
/// looks to one.
///
/// A leader that restarts must be elected again. Followers may have committed entries that it sent
/// them and had not made durable itself; led on in its old term after a power cut, it would give
/// their places to other entries of the same id, which nobody could tell apart.
fn config(settings: &Settings) -> Result<Config, Error> {
    let Settings { timing, compaction, .. } = settings;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "swarm".to_owned(),
        heartbeat_interval: millis(timing.raft_heartbeat * LOOKS_PACE),
        enable_heartbeat: false,
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: 60_000,
        max_payload_entries: 256,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(compaction.entries),
        max_in_snapshot_log_to_keep: compaction.kept,
        purge_batch_size: 256,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| Error::Stopped(error.to_string()))
}
