//! openraft's own suite on our storage, and what happens to a log that is not what was written.

use std::path::PathBuf;

use openraft::EntryPayload;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::leader_id_adv::LeaderId;

use super::*;
use crate::domain::Format;
use crate::env::disk::SledDisk;
use crate::env::disk::tests::patient;
use crate::raft::machine::Machine;
use crate::raft::snapshots::Snapshots;
use crate::raft::types::Batch;
use crate::state::Command;

const KEY: [u8; 32] = [5; 32];

struct Builder;

impl StoreBuilder<TypeConfig, Log, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open(&dir.path().join("raft")).unwrap();
        let snapshots =
            Snapshots::open(dir.path().join("snapshots"), &KEY, &Env::system()).unwrap();
        let machine = Machine::open(snapshots, Scope::root("test"), Env::system()).unwrap();
        Ok((dir, log, machine))
    }
}

fn open(dir: &Path) -> Result<(Log, oneshot::Receiver<()>), Error> {
    open_with(dir, &KEY)
}

fn open_with(dir: &Path, key: &[u8; 32]) -> Result<(Log, oneshot::Receiver<()>), Error> {
    let disk = patient(|| SledDisk::open(&dir.join("log"))).unwrap();
    let place = Place { dir, key, raft_id: 1 };
    Log::open(&Env::system(), &Scope::root("test"), Arc::new(disk), &place)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

/// An entry of some size, so that it takes several records.
fn entry(term: u64, index: u64, size: usize) -> Entry {
    let change = crate::raft::tests::config_change(index, size);
    let command = Command { changes: vec![change], ..Command::default() };
    Entry::new(
        id(term, index),
        EntryPayload::Normal(Batch { format: Format::FIRST, commands: vec![command].into() }),
    )
}

async fn append(log: &mut Log, entries: Vec<Entry>) {
    use openraft::storage::RaftLogStorageExt;
    log.blocking_append(entries).await.unwrap();
}

/// Closes the log and waits until the disk is free.
async fn close(log: Log, closed: oneshot::Receiver<()>) {
    drop(log);
    closed.await.unwrap();
}

async fn filled(dir: &Path, count: u64) {
    let (mut log, closed) = open(dir).unwrap();
    log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    for index in 0..count {
        append(&mut log, vec![entry(3, index, 9_000)]).await;
    }
    close(log, closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}

#[tokio::test]
async fn entries_come_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20).await;
    let (mut log, closed) = open(dir.path()).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 1)));
    let all = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(all, (0..20).map(|index| entry(3, index, 9_000)).collect::<Vec<_>>());
    // One message has about 1 MiB, and always an entry.
    append(&mut log, vec![entry(3, 20, 900_000), entry(3, 21, 900_000)]).await;
    assert_eq!(log.limited_get_log_entries(20, 22).await.unwrap().len(), 1);

    log.truncate_after(Some(id(3, 15))).await.unwrap();
    append(&mut log, vec![entry(4, 16, 10)]).await;
    log.purge(id(3, 4)).await.unwrap();
    close(log, closed).await;

    let (mut log, closed) = open(dir.path()).unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(id(3, 4)));
    assert_eq!(state.last_log_id, Some(id(4, 16)));
    let all = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(all.len(), 12);
    assert_eq!(all[11], entry(4, 16, 10));
    // A snapshot that is ahead of everything.
    log.purge(id(5, 100)).await.unwrap();
    append(&mut log, vec![entry(5, 101, 10)]).await;
    assert!(log.bytes() < 1_000);
    close(log, closed).await;
    let (mut log, _closed) = open(dir.path()).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), [entry(5, 101, 10)]);
}

#[tokio::test]
async fn nothing_secret_is_readable_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 5).await;
    let mut files = vec![dir.path().to_owned()];
    let mut read = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let content = std::fs::read(&path).unwrap();
            read += content.len();
            let mark = crate::raft::tests::CONTENT;
            assert!(!content.windows(mark.len()).any(|part| part == mark), "{}", path.display());
        }
    }
    assert!(read > 45_000);
    let (log, closed) = open(dir.path()).unwrap();
    close(log, closed).await;
    assert!(matches!(open_with(dir.path(), &[6; 32]), Err(Error::Key)));
}

/// What sled would do after damage: open without a word, with a shorter log.
#[tokio::test]
async fn a_log_that_lost_its_end_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 10).await;
    {
        let disk = patient(|| SledDisk::open(&dir.path().join("log"))).unwrap();
        disk.truncate_after(Some(7)).unwrap();
        disk.barrier().unwrap();
    }
    let refused = open(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("it ends at entry 7 and had reached 9"), "{refused}");
    assert!(refused.contains("swarm leave --force"), "{refused}");
}

#[tokio::test]
async fn a_log_with_a_hole_or_another_entry_is_found_out() {
    for what in ["hole", "swap", "vote", "floor", "all"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 10).await;
        let path: PathBuf = dir.path().join("log");
        {
            let disk = patient(|| SledDisk::open(&path)).unwrap();
            let mut records = Vec::new();
            disk.scan(0..=9, &mut |record| {
                records.push(record);
                Ok(())
            })
            .unwrap();
            match what {
                "hole" => {
                    disk.truncate_after(Some(3)).unwrap();
                    records.retain(|record| record.index > 4);
                    disk.append(records).unwrap();
                }
                "swap" => {
                    records.retain(|record| record.index == 4);
                    records.iter_mut().for_each(|record| record.index = 5);
                    disk.append(records).unwrap();
                }
                "vote" => {
                    let forgotten = Vote::new(2, 1);
                    let bytes = codec::encode_message(&forgotten).unwrap().to_vec();
                    disk.put_meta("vote", bytes).unwrap();
                }
                "floor" => std::fs::remove_file(dir.path().join("floor")).unwrap(),
                _ => {}
            }
            disk.barrier().unwrap();
        }
        if what == "all" {
            std::fs::remove_dir_all(&path).unwrap();
        }
        let refused = open(dir.path());
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{what}: {refused:?}");
    }
}

/// A crash between the disk's write and its barrier leaves a part of what was not acknowledged.
#[tokio::test]
async fn a_torn_end_above_the_floor_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 10).await;
    {
        let disk = patient(|| SledDisk::open(&dir.path().join("log"))).unwrap();
        let torn = crate::env::disk::Record { index: 10, part: 0, bytes: vec![1; 100] };
        disk.append(vec![torn]).unwrap();
        disk.barrier().unwrap();
    }
    let (mut log, closed) = open(dir.path()).unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(3, 9)));
    append(&mut log, vec![entry(3, 10, 10)]).await;
    close(log, closed).await;
    let (mut log, _closed) = open(dir.path()).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 11);
}

/// Flips bits all over the database: whatever happens, what is read is what was written.
#[tokio::test]
async fn flipped_bits_never_change_what_is_read() {
    let origin = tempfile::tempdir().unwrap();
    filled(origin.path(), 12).await;
    let db = std::fs::read(origin.path().join("log/db")).unwrap();
    let written: Vec<Entry> = (0..12).map(|index| entry(3, index, 9_000)).collect();
    let used = db.iter().rposition(|byte| *byte != 0).unwrap();
    let mut found_out = 0;
    for round in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        for name in ["floor", "log/conf"] {
            std::fs::copy(origin.path().join(name), dir.path().join(name)).unwrap();
        }
        let mut damaged = db.clone();
        let at = (used / 24) * round + 61 * round % 4_000;
        damaged[at] ^= 1 << (round % 8);
        std::fs::write(dir.path().join("log/db"), damaged).unwrap();
        let path = dir.path().to_owned();
        let opened = std::panic::catch_unwind(move || open(&path).map(|(log, _)| log));
        match opened {
            Ok(Ok(mut log)) => {
                assert_eq!(log.try_get_log_entries(..).await.unwrap(), written, "byte {at}");
            }
            Ok(Err(_)) | Err(_) => found_out += 1,
        }
    }
    assert!(found_out > 0, "no flip hit anything");
}
