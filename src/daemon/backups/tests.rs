//! Backups on a real file system: verified, private, counted; and every way not to get one.

use super::*;
use crate::domain::Position;
use crate::state::fixtures;

fn schedule(dir: &Path) -> BackupSchedule {
    let passphrase_file = dir.join("key");
    std::fs::write(&passphrase_file, "correct horse battery\n").unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&passphrase_file, private).unwrap();
    let directory = dir.join("backups");
    std::fs::create_dir(&directory).unwrap();
    BackupSchedule { every: Duration::from_secs(60), directory, passphrase_file, keep: 2 }
}

fn view() -> View {
    let mut state = fixtures::small();
    state.position = Position { term: 3, index: 44 };
    View::new(state)
}

fn minutes(count: u64) -> Timestamp {
    Timestamp((1_800_000_000 + count * 60) * 1_000_000_000)
}

#[test]
fn backups_are_verified_private_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (schedule, env, node) = (schedule(dir.path()), Env::system(), NodeId::from_bytes([5; 16]));
    std::fs::write(schedule.directory.join("another.swarm"), "somebody else's").unwrap();
    let left = format!("{}{}", plan::name(node, minutes(0)), plan::DRAFT);
    std::fs::write(schedule.directory.join(left), "half").unwrap();
    for minute in 0..4 {
        let (path, bytes) = write(&schedule, &env, node, &view(), minutes(minute)).unwrap();
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!((about.len(), about.permissions().mode() & 0o777), (bytes, 0o600));
        let content = std::fs::read(&path).unwrap();
        let (_, state) = archive::read(&content, b"correct horse battery").unwrap();
        assert_eq!(state.position, view().position);
    }
    assert_eq!(newest(&schedule.directory, node), Some(minutes(3)));
    let all = files::list(&schedule.directory, "").unwrap();
    assert_eq!(all.len(), 3, "two of ours, and what is not ours: {all:?}");
}

#[test]
fn what_stands_in_the_way_is_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let (good, env, node) = (schedule(dir.path()), Env::system(), NodeId::from_bytes([5; 16]));
    let told = |schedule: &BackupSchedule| {
        format!("{:#}", write(schedule, &env, node, &view(), minutes(0)).unwrap_err())
    };
    let elsewhere = BackupSchedule { directory: dir.path().join("none"), ..good.clone() };
    assert!(told(&elsewhere).contains("is not there: make it (mkdir -m 700"));
    let missing = BackupSchedule { passphrase_file: dir.path().join("none"), ..good.clone() };
    assert!(told(&missing).contains("cannot read the passphrase of backups from"));
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&good.passphrase_file, mode(0o644)).unwrap();
    assert!(told(&good).contains("can be read by others (mode 644): chmod 600"));
    std::fs::set_permissions(&good.passphrase_file, mode(0o600)).unwrap();
    std::fs::write(&good.passphrase_file, "short").unwrap();
    assert!(told(&good).contains("the passphrase is too short"));
    assert_eq!(files::list(&good.directory, "").unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn a_file_that_is_not_what_was_written_is_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (schedule, env, node) = (schedule(dir.path()), Env::system(), NodeId::from_bytes([5; 16]));
    let (path, _) = write(&schedule, &env, node, &view(), minutes(0)).unwrap();
    verify(&path, b"correct horse battery", &view()).unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[300] ^= 1;
    std::fs::write(&path, &content).unwrap();
    let error = format!("{:#}", verify(&path, b"correct horse battery", &view()).unwrap_err());
    assert!(error.contains("is not what was written to it"), "{error}");
}
