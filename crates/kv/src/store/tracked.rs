//! Which clients have read which keys, of one shard: for those who asked to hear when one changes.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Clients by the keys that they have read. A key is the same in all databases.
#[derive(Debug, Default)]
pub struct Tracked {
    by_key: BTreeMap<Vec<u8>, Vec<u64>>,
    /// The key that was given up last: others have their turn before it.
    hand: Vec<u8>,
}

impl Tracked {
    /// Notes that a client has read a key; whether the key is new, and whether that it has read it is.
    pub fn note(&mut self, key: &[u8], client: u64) -> (bool, bool) {
        match self.by_key.get_mut(key) {
            Some(clients) if clients.contains(&client) => (false, false),
            Some(clients) => {
                clients.push(client);
                (false, true)
            }
            None => {
                self.by_key.insert(key.to_vec(), vec![client]);
                (true, true)
            }
        }
    }

    /// Takes out who has read a key.
    pub fn take(&mut self, key: &[u8]) -> Option<Vec<u64>> {
        self.by_key.remove(key)
    }

    /// Takes out some key with who has read it, another one each time.
    pub fn take_any(&mut self) -> Option<(Vec<u8>, Vec<u64>)> {
        let after = (Bound::Excluded(&self.hand[..]), Bound::Unbounded);
        let next = self.by_key.range::<[u8], _>(after).next();
        let key = next.or_else(|| self.by_key.first_key_value())?.0.clone();
        let clients = self.by_key.remove(&key)?;
        self.hand.clone_from(&key);
        Some((key, clients))
    }

    /// Takes out everything; how many keys, and how many reads of a key by a client.
    pub fn clear(&mut self) -> (usize, usize) {
        let all = std::mem::take(&mut self.by_key);
        (all.len(), all.values().map(Vec::len).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::Tracked;

    #[test]
    fn each_key_has_its_turn() {
        let mut tracked = Tracked::default();
        for key in [b"a", b"b", b"c"] {
            assert_eq!(tracked.note(key, 1), (true, true));
        }
        assert_eq!((tracked.note(b"b", 1), tracked.note(b"b", 2)), ((false, false), (false, true)));
        assert_eq!(tracked.take_any(), Some((b"a".to_vec(), vec![1])));
        tracked.note(b"a", 1);
        assert_eq!(tracked.take_any(), Some((b"b".to_vec(), vec![1, 2])));
        assert_eq!(tracked.take(b"c"), Some(vec![1]));
        assert_eq!(tracked.clear(), (1, 1));
        assert_eq!(tracked.take_any(), None);
    }
}
