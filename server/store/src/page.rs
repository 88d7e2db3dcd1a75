//! A page of a list.

/// Which rows of a list: those after `after` (in the list's own order), at most `limit`.
#[derive(Debug, Clone, Copy)]
pub struct Page<K> {
    /// Where the page before ended; None: the first page.
    pub after: Option<K>,
    /// Rows at most.
    pub limit: i64,
}

impl<K> Page<K> {
    /// The same page of a list whose rows have keys of another type.
    #[must_use]
    pub fn map<L>(self, key: impl FnOnce(K) -> L) -> Page<L> {
        Page {
            after: self.after.map(key),
            limit: self.limit,
        }
    }
}
