//! Cursor paging: `?limit=`, `?cursor=`.

use std::future::Future;

use actix_web::HttpRequest;
use deadbeat_domain::limits;
use deadbeat_store::page::Page;
use serde_json::Value;
use std::str::FromStr;
use uuid::Uuid;

use crate::error::ApiError;
use crate::problem::Problem;

/// The query parameters of a request. All of them are in the list of known parameters.
#[derive(Debug)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses the query. Refuses unknown parameters, so that a misspelt filter is not silently ignored.
    ///
    /// # Errors
    /// If a parameter is unknown or contains a control character, or the query is not percent-encoded UTF-8.
    pub fn of(request: &HttpRequest, known: &[&str]) -> Result<Self, ApiError> {
        let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(request.query_string())
            .map_err(|error| ApiError::new(Problem::InvalidQuery, error.to_string()))?
            .into_inner();
        for (name, value) in &pairs {
            // Names, tags and slugs contain no control characters, and PostgreSQL refuses a NUL in a text.
            if value.contains(char::is_control) {
                return Err(ApiError::new(
                    Problem::InvalidQuery,
                    format!(
                        "{:?} holds a control character; only printable text is allowed",
                        clip(name)
                    ),
                ));
            }
            if !known.contains(&name.as_str()) {
                return Err(ApiError::new(
                    Problem::InvalidQuery,
                    format!(
                        "there is no parameter {:?}; {} are allowed",
                        clip(name),
                        known.join(", ")
                    ),
                ));
            }
        }
        Ok(Self { pairs })
    }

    /// Returns the last value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns every value of a parameter.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Parses a parameter.
    ///
    /// # Errors
    /// If the value cannot be parsed; `allowed` then says what is allowed.
    pub fn parse<T: FromStr>(&self, name: &str, allowed: &str) -> Result<Option<T>, ApiError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::new(
                        Problem::InvalidQuery,
                        format!("{name} is {:?}; {allowed} is allowed", clip(text)),
                    )
                })
            })
            .transpose()
    }

    /// Returns the page for which the client asks.
    ///
    /// # Errors
    /// If the limit or the cursor is not allowed.
    pub fn page<K: FromStr>(&self) -> Result<Page<K>, ApiError> {
        let limit: i64 = self
            .parse("limit", &format!("1 to {}", limits::PAGE_MAX))?
            .unwrap_or(limits::PAGE_DEFAULT);
        if !(1..=limits::PAGE_MAX).contains(&limit) {
            return Err(ApiError::new(
                Problem::InvalidQuery,
                format!("limit is {limit}; 1 to {} is allowed", limits::PAGE_MAX),
            ));
        }
        Ok(Page {
            after: self.parse("cursor", "a next_cursor of the same list")?,
            limit,
        })
    }
}

fn clip(text: &str) -> String {
    deadbeat_domain::monitor::clip(text)
}

/// Cuts a page that was read with one extra row. Returns the cursor of the next page, if there is one.
pub fn cut<T>(mut rows: Vec<T>, limit: i64, cursor: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if rows.len() <= limit {
        return (rows, None);
    }
    rows.truncate(limit);
    let next = rows.last().map(cursor);
    (rows, next)
}

/// A page ends after about this many bytes, even if it has fewer rows than the limit: a client can make some rows large.
const PAGE_BYTES: usize = 1_000_000;
/// The most rows that one query reads. The server therefore holds at most this many large rows in addition to a page.
const ROWS_AT_A_TIME: i64 = 20;

/// Reads a page of rows that may be large. Returns the rows as `show` converts them, and the cursor of the next page, if there is one. The page
/// contains at least one row, and ends early at about [`PAGE_BYTES`].
///
/// # Errors
/// Those of `read`.
pub async fn bounded<T, E, F: Future<Output = Result<Vec<T>, E>>>(
    page: &Page<Uuid>,
    read: impl Fn(Page<Uuid>) -> F,
    show: impl Fn(&T) -> (Uuid, Value),
) -> Result<(Vec<Value>, Option<String>), E> {
    let wanted = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let (mut rows, mut bytes, mut after) = (Vec::new(), 0, page.after);
    loop {
        let chunk = read(Page {
            after,
            limit: ROWS_AT_A_TIME,
        })
        .await?;
        let is_last = chunk.len() < ROWS_AT_A_TIME as usize;
        for row in &chunk {
            if rows.len() == wanted || bytes >= PAGE_BYTES {
                return Ok((rows, after.map(|id| id.to_string())));
            }
            let (id, shown) = show(row);
            bytes += shown.to_string().len();
            rows.push(shown);
            after = Some(id);
        }
        if is_last {
            return Ok((rows, None));
        }
    }
}

/// Returns the same page with one more row, which shows whether another page follows.
#[must_use]
pub fn one_more<K: Copy>(page: &Page<K>) -> Page<K> {
    Page {
        after: page.after,
        limit: page.limit + 1,
    }
}
