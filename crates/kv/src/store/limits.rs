//! Up to which sizes values are kept in their compact encodings.

/// The limits of compact encodings, as `CONFIG SET` has them. Small, and copied where needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fields of a hash that is packed, at most.
    pub hash_max_listpack_entries: usize,
    /// Bytes of a field or value of a hash that is packed, at most.
    pub hash_max_listpack_value: usize,
    /// Members of a set of integers that is kept as such, at most.
    pub set_max_intset_entries: usize,
    /// Members of a sorted set that is packed, at most.
    pub zset_max_listpack_entries: usize,
    /// Bytes of a member of a sorted set that is packed, at most.
    pub zset_max_listpack_value: usize,
    /// Elements of a piece of a list where positive; where negative, -1 to -5, its bytes: 4, 8, 16, 32, 64 KiB.
    pub list_max_listpack_size: i64,
    /// Bytes of a sparse HyperLogLog, at most.
    pub hll_sparse_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            set_max_intset_entries: 512,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            list_max_listpack_size: -2,
            hll_sparse_max_bytes: 3000,
        }
    }
}
