//! A page of a list.

/// Which rows of a list: those after `after` (in the list's own order), at most `limit`.
#[derive(Debug, Clone, Copy)]
pub struct Page<K> {
    /// Where the page before ended; None: the first page.
    pub after: Option<K>,
    /// Rows at most.
    pub limit: i64,
}
