//! Places for connections, bounded in all and per key. Who comes when all are taken gets one: the
//! oldest of the greediest key has to go. So a flood of idle connections costs idle connections only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// A bounded number of places.
#[derive(Debug)]
pub(super) struct Slots<K: Ord + Copy> {
    taken: Arc<Mutex<Taken<K>>>,
    total: usize,
    per_key: usize,
    parent: CancellationToken,
}

#[derive(Debug)]
struct Taken<K: Ord + Copy> {
    next: u64,
    tokens: BTreeMap<u64, (K, CancellationToken)>,
    keys: BTreeMap<K, BTreeSet<u64>>,
}

/// A place; freed on drop.
#[derive(Debug)]
pub(super) struct Slot<K: Ord + Copy> {
    taken: Arc<Mutex<Taken<K>>>,
    number: u64,
    token: CancellationToken,
}

impl<K: Ord + Copy> Slots<K> {
    /// At most `total` places, at most `per_key` for one key; all are lost with `parent`.
    pub(super) fn new(total: usize, per_key: usize, parent: &CancellationToken) -> Self {
        let taken = Taken { next: 0, tokens: BTreeMap::new(), keys: BTreeMap::new() };
        let taken = Arc::new(Mutex::new(taken));
        Self { taken, total, per_key, parent: parent.clone() }
    }

    /// Takes a place, at the cost of the oldest of the greediest if need be.
    pub(super) fn enter(&self, key: K) -> Slot<K> {
        let mut taken = lock(&self.taken);
        if taken.keys.get(&key).is_some_and(|held| held.len() >= self.per_key) {
            taken.evict_oldest(key);
        } else if taken.tokens.len() >= self.total
            && let Some(greediest) = taken.greediest()
        {
            taken.evict_oldest(greediest);
        }
        let number = taken.next;
        taken.next += 1;
        let token = self.parent.child_token();
        taken.tokens.insert(number, (key, token.clone()));
        taken.keys.entry(key).or_default().insert(number);
        Slot { taken: Arc::clone(&self.taken), number, token }
    }

    /// Takes all places of a key away.
    pub(super) fn evict(&self, key: K) {
        let mut taken = lock(&self.taken);
        while taken.keys.contains_key(&key) {
            taken.evict_oldest(key);
        }
    }

    /// Who holds places.
    pub(super) fn keys(&self) -> Vec<K> {
        lock(&self.taken).keys.keys().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.taken).tokens.len()
    }
}

impl<K: Ord + Copy> Slot<K> {
    /// Cancelled when the place is lost.
    pub(super) const fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl<K: Ord + Copy> Drop for Slot<K> {
    fn drop(&mut self) {
        self.token.cancel();
        lock(&self.taken).remove(self.number);
    }
}

impl<K: Ord + Copy> Taken<K> {
    fn remove(&mut self, number: u64) -> Option<CancellationToken> {
        let (key, token) = self.tokens.remove(&number)?;
        if let Some(held) = self.keys.get_mut(&key) {
            held.remove(&number);
            if held.is_empty() {
                self.keys.remove(&key);
            }
        }
        Some(token)
    }

    fn evict_oldest(&mut self, key: K) {
        let oldest = self.keys.get(&key).and_then(|held| held.first().copied());
        if let Some(token) = oldest.and_then(|number| self.remove(number)) {
            token.cancel();
        }
    }

    fn greediest(&self) -> Option<K> {
        self.keys.iter().max_by_key(|(_, held)| held.len()).map(|(key, _)| *key)
    }
}

fn lock<K: Ord + Copy>(taken: &Mutex<Taken<K>>) -> MutexGuard<'_, Taken<K>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_greediest_goes() {
        let slots = Slots::new(4, 3, &CancellationToken::new());
        let greedy: Vec<_> = (0..3).map(|_| slots.enter('a')).collect();
        let modest = slots.enter('b');
        let newcomer = slots.enter('c');
        assert!(greedy[0].token().is_cancelled());
        assert!(!greedy[1].token().is_cancelled());
        assert!(!modest.token().is_cancelled() && !newcomer.token().is_cancelled());
        assert_eq!(slots.len(), 4);
        drop((greedy, modest, newcomer));
        assert_eq!((slots.len(), slots.keys()), (0, vec![]));
    }

    #[test]
    fn one_key_has_its_own_bound() {
        let slots = Slots::new(100, 2, &CancellationToken::new());
        let held: Vec<_> = (0..3).map(|_| slots.enter(1)).collect();
        let cancelled: Vec<_> = held.iter().map(|slot| slot.token().is_cancelled()).collect();
        assert_eq!(cancelled, [true, false, false]);
        slots.evict(1);
        assert!(held.iter().all(|slot| slot.token().is_cancelled()));
        assert_eq!(slots.len(), 0);
    }
}
