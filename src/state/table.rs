//! An ordered, structurally shared map: O(1) to clone, O(log n) to change, whatever the number of
//! clones. The only place that names the map crate.

use std::borrow::Borrow;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use immutable_chunkmap::map::MapM;

/// Ordered rows.
pub struct Table<K: Ord + Clone, V> {
    rows: MapM<K, Arc<V>>,
}

impl<K: Ord + Clone, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone() }
    }
}

impl<K: Ord + Clone, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: MapM::new() }
    }
}

impl<K: Ord + Clone, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} rows)", self.rows.len())
    }
}

impl<K: Ord + Clone, V> Table<K, V> {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// The row with a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key)
    }

    /// Adds or replaces a row; returns what was there.
    pub fn insert(&mut self, key: K, row: Arc<V>) -> Option<Arc<V>> {
        self.rows.insert_cow(key, row)
    }

    /// Removes a row; returns what was there.
    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        self.rows.remove_cow(key)
    }

    /// All rows in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        (&self.rows).into_iter()
    }

    /// All rows' values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.iter().map(|(_, row)| row)
    }

    /// The rows in a range of keys, in order.
    pub fn range<'a, R: RangeBounds<K> + 'a>(
        &'a self,
        keys: R,
    ) -> impl Iterator<Item = (&'a K, &'a Arc<V>)> {
        self.rows.range(keys)
    }
}
