//! The lock: opening, following, and the power going at every step.

use super::*;
use crate::domain::node::Role;
use crate::domain::{ClusterId, Timestamp};
use crate::identity::{Credentials, found};

fn key(byte: u8) -> UnlockKey {
    UnlockKey::new([byte; 32])
}

fn lock(generation: u64, byte: u8) -> Autolock {
    Autolock { generation, key: Some(key(byte)) }
}

fn credentials() -> Credentials {
    let hour = std::time::Duration::from_secs(3600);
    let (_, identity, credentials) =
        found(ClusterId::from_bytes([1; 16]), Timestamp(1_800_000_000_000_000_000), hour).unwrap();
    assert_eq!(identity.role, Role::Manager);
    credentials
}

fn keyring(dir: &Path) -> Keyring {
    Keyring::new(dir, &Env::system())
}

/// A state directory as a manager has it.
fn manager(dir: &Path, lock: &Autolock) -> [u8; 32] {
    let ring = keyring(dir);
    let data_key = ring.data_key(lock).unwrap();
    ring.certificates().save(&credentials()).unwrap();
    data_key
}

/// What a start finds: the data key, if nothing or `key` opens everything.
fn opens(dir: &Path, key: Option<&UnlockKey>) -> Option<[u8; 32]> {
    let ring = keyring(dir);
    match (ring.look().unwrap(), key) {
        (Found::Open, _) => {}
        (Found::Locked, Some(key)) => ring.unlock(key).ok()?,
        (Found::Locked, None) => return None,
        (Found::Nothing, _) => panic!("the key is gone"),
    }
    ring.certificates().load().ok()??;
    let data_key = ring.data_key(&Autolock::default()).unwrap();
    Some(data_key)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("certificates")).unwrap();
    for file in ["raft.key", "certificates/swarm-node.pem"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[test]
fn a_locked_key_opens_with_its_unlock_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data_key = manager(dir.path(), &lock(1, 7));
    for file in ["raft.key", "certificates/swarm-node.pem"] {
        let content = std::fs::read(dir.path().join(file)).unwrap();
        assert!(!content.windows(32).any(|window| window == data_key));
    }
    let before = std::fs::read(dir.path().join("raft.key")).unwrap();
    let ring = keyring(dir.path());
    assert_eq!(ring.look().unwrap(), Found::Locked);
    assert!(ring.data_key(&Autolock::default()).is_err(), "no second key is made");
    assert!(matches!(ring.unlock(&key(8)), Err(UnlockError::WrongKey)));
    assert_eq!(std::fs::read(dir.path().join("raft.key")).unwrap(), before);
    let certificate = ring.certificates().certificate().unwrap();
    assert!(certificate.is_some(), "when it ends can be told without the key");
    assert_eq!(opens(dir.path(), None), None);
    assert_eq!(opens(dir.path(), Some(&key(7))), Some(data_key));
}

#[test]
fn the_lock_follows_the_cluster_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let data_key = manager(dir.path(), &Autolock::default());
    assert_eq!(opens(dir.path(), None), Some(data_key));
    let ring = keyring(dir.path());
    ring.look().unwrap();
    ring.follow(&lock(1, 1)).unwrap();
    assert_eq!(opens(dir.path(), Some(&key(1))), Some(data_key));
    ring.follow(&lock(2, 2)).unwrap();
    ring.follow(&lock(1, 1)).unwrap();
    assert_eq!(opens(dir.path(), Some(&key(1))), None, "an older state does not count");
    assert_eq!(opens(dir.path(), Some(&key(2))), Some(data_key));
    assert_eq!(ring.certificates().keeping().unwrap(), Some(Keeping::Sealed));
    ring.follow(&Autolock { generation: 3, key: None }).unwrap();
    assert_eq!(opens(dir.path(), None), Some(data_key));
    assert_eq!(ring.certificates().keeping().unwrap(), Some(Keeping::Plain));
}

/// Every order in which the two files can be on the disk when the power goes.
#[test]
fn the_power_may_go_between_any_two_steps() {
    let top = tempfile::tempdir().unwrap();
    let states =
        [Autolock::default(), lock(1, 1), lock(2, 2), Autolock { generation: 3, key: None }];
    for pair in states.windows(2) {
        let [old, new] = pair else { unreachable!() };
        let name = format!("{}-{}", old.generation, new.generation);
        let (before, after) = (top.path().join(&name), top.path().join(format!("{name}-after")));
        std::fs::create_dir(&before).unwrap();
        let data_key = manager(&before, old);
        copy(&before, &after);
        let ring = keyring(&after);
        match (ring.look().unwrap(), &old.key) {
            (Found::Locked, Some(key)) => ring.unlock(key).unwrap(),
            (found, _) => assert_eq!(found, Found::Open),
        }
        ring.follow(new).unwrap();

        // The one moment in the middle: one file is new, one is old, in the order of the steps.
        let first = if new.key.is_some() { "certificates/swarm-node.pem" } else { "raft.key" };
        let middle = top.path().join(format!("{name}-middle"));
        copy(&before, &middle);
        std::fs::copy(after.join(first), middle.join(first)).unwrap();
        let key = if first == "raft.key" { new.key.as_ref() } else { old.key.as_ref() };
        assert_eq!(opens(&middle, key), Some(data_key), "{name}");

        // The next start finishes what was begun.
        let ring = keyring(&middle);
        if let (Found::Locked, Some(key)) = (ring.look().unwrap(), key) {
            ring.unlock(key).unwrap();
        }
        ring.follow(new).unwrap();
        assert_eq!(opens(&middle, new.key.as_ref()), Some(data_key), "{name}");
        let keeping = if new.key.is_some() { Keeping::Sealed } else { Keeping::Plain };
        assert_eq!(ring.certificates().keeping().unwrap(), Some(keeping));
    }
}

#[test]
fn keys_of_older_releases_are_read_and_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.key");
    let never_locked = keyring(dir.path()).data_key(&Autolock::default()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), never_locked, "older releases read it");
    std::fs::write(&path, [9; 32]).unwrap();
    let ring = keyring(dir.path());
    assert_eq!(ring.data_key(&Autolock::default()).unwrap(), [9; 32]);
    let wanted = lock(1, 1);
    ring.follow(&wanted).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = keyring(dir.path()).look().unwrap_err().to_string();
        assert!(error.contains("damaged"), "byte {at}: {error}");
    }
}

#[test]
fn who_is_no_manager_any_more_keeps_a_plain_private_key() {
    let dir = tempfile::tempdir().unwrap();
    manager(dir.path(), &lock(1, 1));
    let ring = keyring(dir.path());
    ring.look().unwrap();
    ring.unlock(&key(1)).unwrap();
    ring.forget().unwrap();
    assert_eq!(ring.look().unwrap(), Found::Nothing);
    let fresh = keyring(dir.path());
    assert!(fresh.certificates().load().unwrap().is_some());
    // A manager again, in a cluster that locks: with another data key.
    ring.data_key(&lock(5, 5)).unwrap();
    ring.follow(&lock(5, 5)).unwrap();
    assert!(opens(dir.path(), Some(&key(5))).is_some());
}
