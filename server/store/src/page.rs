//! A page of a list.

/// The rows of one page of a list: those after `after` in the list's own order, at most `limit`.
#[derive(Debug, Clone, Copy)]
pub struct Page<K> {
    /// The last row of the previous page. None: this is the first page.
    pub after: Option<K>,
    /// The most rows of the page.
    pub limit: i64,
}

impl<K> Page<K> {
    /// Returns the same page of a list whose rows have keys of another type.
    #[must_use]
    pub fn map<L>(self, key: impl FnOnce(K) -> L) -> Page<L> {
        Page {
            after: self.after.map(key),
            limit: self.limit,
        }
    }
}
