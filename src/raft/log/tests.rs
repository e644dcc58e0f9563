//! openraft's own suite on our storage, and what happens to a log that is not what was written.

use std::path::PathBuf;

use openraft::EntryPayload;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::leader_id_adv::LeaderId;

use super::*;
use crate::domain::Format;
use crate::env::disk::LogKind;
use crate::env::disk::tests::patient;
use crate::env::{Device, SystemDevice};
use crate::raft::machine::Machine;
use crate::raft::snapshots::Snapshots;
use crate::raft::start::open_machine;
use crate::raft::types::Batch;
use crate::state::Command;

const KEY: [u8; 32] = [5; 32];

struct Builder(LogKind);

impl StoreBuilder<TypeConfig, Log, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open(self.0, &dir.path().join("raft")).unwrap();
        let snapshots =
            Snapshots::open(dir.path().join("snapshots"), &KEY, &Env::system()).unwrap();
        let machine = Machine::open(snapshots, Scope::root("test"), Env::system()).unwrap();
        Ok((dir, log, machine))
    }
}

fn open(kind: LogKind, dir: &Path) -> Result<(Log, oneshot::Receiver<()>), Error> {
    open_with(kind, dir, &KEY)
}

fn open_with(
    kind: LogKind,
    dir: &Path,
    key: &[u8; 32],
) -> Result<(Log, oneshot::Receiver<()>), Error> {
    let place = Place { dir, key, raft_id: 1 };
    Log::open(&Env::system(), &Scope::root("test"), disk(kind, dir), &place)
}

/// The disk under a log that nobody has open.
fn disk(kind: LogKind, dir: &Path) -> Arc<dyn LogDisk> {
    patient(|| SystemDevice::new(kind).open_log(&dir.join("log"))).unwrap()
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

async fn filled(kind: LogKind, dir: &Path, count: u64) {
    let (mut log, closed) = open(kind, dir).unwrap();
    log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    for index in 0..count {
        append(&mut log, vec![entry(3, index, 9_000)]).await;
    }
    close(log, closed).await;
}

async fn openrafts_suite_passes(kind: LogKind) {
    Suite::test_all(Builder(kind)).await.unwrap();
}

async fn entries_come_back_after_reopening(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    filled(kind, dir.path(), 20).await;
    let (mut log, closed) = open(kind, dir.path()).unwrap();
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

    let (mut log, closed) = open(kind, dir.path()).unwrap();
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
    let (mut log, _closed) = open(kind, dir.path()).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), [entry(5, 101, 10)]);
}

async fn nothing_secret_is_readable_on_the_disk(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    filled(kind, dir.path(), 5).await;
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
    let (log, closed) = open(kind, dir.path()).unwrap();
    close(log, closed).await;
    assert!(matches!(open_with(kind, dir.path(), &[6; 32]), Err(Error::Key)));
}

/// What sled would do after damage: open without a word, with a shorter log.
async fn a_log_that_lost_its_end_is_found_out(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    filled(kind, dir.path(), 10).await;
    {
        let disk = disk(kind, dir.path());
        disk.truncate_after(Some(7)).unwrap();
        disk.barrier().unwrap();
    }
    let refused = open(kind, dir.path()).unwrap_err().to_string();
    assert!(refused.contains("it ends at entry 7 and had reached 9"), "{refused}");
    assert!(refused.contains("swarm leave --force"), "{refused}");
}

async fn a_log_with_a_hole_or_another_entry_is_found_out(kind: LogKind) {
    for what in ["hole", "swap", "vote", "floor", "all"] {
        let dir = tempfile::tempdir().unwrap();
        filled(kind, dir.path(), 10).await;
        let path: PathBuf = dir.path().join("log");
        {
            let disk = disk(kind, dir.path());
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
        let refused = open(kind, dir.path());
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{what}: {refused:?}");
    }
}

/// A crash between the disk's write and its barrier leaves a part of what was not acknowledged.
async fn a_torn_end_above_the_floor_is_dropped(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    filled(kind, dir.path(), 10).await;
    {
        let disk = disk(kind, dir.path());
        let torn = crate::env::disk::Record { index: 10, part: 0, bytes: vec![1; 100] };
        disk.append(vec![torn]).unwrap();
        disk.barrier().unwrap();
    }
    let (mut log, closed) = open(kind, dir.path()).unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(3, 9)));
    append(&mut log, vec![entry(3, 10, 10)]).await;
    close(log, closed).await;
    let (mut log, _closed) = open(kind, dir.path()).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 11);
}

/// A process that is killed leaves in the page cache what it had not made durable. The next one takes
/// it for its log, and may acknowledge it without writing it again: so it is made durable first.
async fn what_is_found_at_the_start_is_durable_before_it_counts(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    let floor = dir.path().join("floor");
    filled(kind, dir.path(), 5).await;
    let before = std::fs::read(&floor).unwrap();
    let (mut log, closed) = open(kind, dir.path()).unwrap();
    append(&mut log, vec![entry(3, 5, 10)]).await;
    log.save_vote(&Vote::new_committed(4, 1)).await.unwrap();
    close(log, closed).await;
    std::fs::write(&floor, &before).unwrap(); // killed before it was raised
    let (log, closed) = open(kind, dir.path()).unwrap();
    close(log, closed).await;
    disk(kind, dir.path()).truncate_after(Some(4)).unwrap();
    let refused = open(kind, dir.path()).unwrap_err().to_string();
    assert!(refused.contains("it ends at entry 4 and had reached 5"), "{refused}");
}

/// Flips bits all over the log: whatever happens, what is read is what was written.
async fn flipped_bits_never_change_what_is_read(kind: LogKind) {
    let origin = tempfile::tempdir().unwrap();
    filled(kind, origin.path(), 12).await;
    let files = crate::env::files::list(&origin.path().join("log"), "").unwrap();
    let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let files: Vec<PathBuf> = files.into_iter().filter(|path| path.is_file()).collect();
    let largest = files.iter().max_by_key(|path| length(path)).unwrap();
    let content = std::fs::read(largest).unwrap();
    let written: Vec<Entry> = (0..12).map(|index| entry(3, index, 9_000)).collect();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    let mut found_out = 0;
    for round in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        for path in files.iter().chain([&origin.path().join("floor")]) {
            let name = path.strip_prefix(origin.path()).unwrap();
            std::fs::copy(path, dir.path().join(name)).unwrap();
        }
        let mut damaged = content.clone();
        let at = (used / 24) * round + 61 * round % 4_000;
        damaged[at] ^= 1 << (round % 8);
        let name = largest.strip_prefix(origin.path()).unwrap();
        std::fs::write(dir.path().join(name), damaged).unwrap();
        let path = dir.path().to_owned();
        let open = move || -> Result<Log, Error> {
            let disk = SystemDevice::new(kind).open_log(&path.join("log"));
            let disk =
                disk.map_err(|error| Error::io("the raft log", std::io::Error::other(error)))?;
            let place = Place { dir: &path, key: &KEY, raft_id: 1 };
            Log::open(&Env::system(), &Scope::root("test"), disk, &place).map(|(log, _)| log)
        };
        match std::panic::catch_unwind(open) {
            Ok(Ok(mut log)) => {
                assert_eq!(log.try_get_log_entries(..).await.unwrap(), written, "byte {at}");
            }
            Ok(Err(_)) | Err(_) => found_out += 1,
        }
    }
    assert!(found_out > 0, "no flip hit anything");
}

/// As a binary that was taken back after the format was raised finds it.
async fn a_log_of_a_newer_release_is_refused_with_a_way_out(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    filled(kind, dir.path(), 5).await;
    let settings = crate::raft::Settings {
        dir: dir.path().to_owned(),
        raft_id: crate::domain::RaftId(1),
        node: crate::domain::NodeId::default(),
        addr: ([10, 0, 0, 1], 2377).into(),
        timing: crate::domain::timing::Timing::DEFAULT,
        key: KEY,
        compaction: crate::raft::Compaction::DEFAULT,
    };
    let begin = |log: &Log| open_machine(&settings, &Env::system(), &Scope::root("test"), log);
    let (mut log, closed) = open(kind, dir.path()).unwrap();
    begin(&log).unwrap();
    let next = Format(Format::NEWEST.0 + 1);
    for index in 5..7 {
        let batch = Batch { format: next, commands: vec![Command::default()].into() };
        append(&mut log, vec![Entry::new(id(3, index), EntryPayload::Normal(batch))]).await;
    }
    close(log, closed).await;
    let (log, _closed) = open(kind, dir.path()).unwrap();
    let refused = begin(&log).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::Newer { .. }), "{refused}");
    let told = refused.to_string();
    let what =
        format!("entry 5 of its log has format {next}, and this release knows {}", Format::NEWEST);
    for words in [what.as_str(), "install that release again", "swarm leave --force"] {
        assert!(told.contains(words), "{told}");
    }
}

/// Not damage, and no end that may be dropped: neither above the floor nor below.
async fn a_record_of_a_newer_shape_is_refused_and_left_alone(kind: LogKind) {
    let dir = tempfile::tempdir().unwrap();
    filled(kind, dir.path(), 5).await;
    let entry = |index: u64| {
        let mut found = Vec::new();
        let take = &mut |record: crate::env::disk::Record| {
            found.push(record);
            Ok(())
        };
        disk(kind, dir.path()).scan(index..=index, take).unwrap();
        found
    };
    let newer = crate::raft::record::tests::of_a_newer_shape(&entry(4), 5);
    {
        let disk = disk(kind, dir.path());
        disk.append(newer.clone()).unwrap();
        disk.barrier().unwrap();
    }
    for _ in 0..2 {
        let refused = open(kind, dir.path()).unwrap_err();
        assert!(matches!(refused, Error::Newer { .. }), "{refused}");
        let told = refused.to_string();
        assert!(
            told.contains("entry 5 of the log has format 2, and this release knows 1"),
            "{told}"
        );
    }
    assert_eq!(entry(5).len(), newer.len(), "it is still there");
}

crate::raft::tests::over_both! {
    a_record_of_a_newer_shape_is_refused_and_left_alone,
    a_log_of_a_newer_release_is_refused_with_a_way_out,
    openrafts_suite_passes,
    entries_come_back_after_reopening,
    nothing_secret_is_readable_on_the_disk,
    a_log_that_lost_its_end_is_found_out,
    a_log_with_a_hole_or_another_entry_is_found_out,
    a_torn_end_above_the_floor_is_dropped,
    flipped_bits_never_change_what_is_read,
    what_is_found_at_the_start_is_durable_before_it_counts,
}
