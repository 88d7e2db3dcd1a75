//! An error together with its sources, for logs: "the database is away" alone does not help anybody to repair the
//! fault.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

/// Prints an error and its sources, each after a colon.
#[derive(Debug, Clone, Copy)]
pub struct WithSources<'a>(&'a (dyn Error + 'static));

/// Returns an error and its sources in one line. For logs only: a source may name hosts and users.
#[must_use]
pub fn with_sources<'a>(error: &'a (dyn Error + 'static)) -> WithSources<'a> {
    WithSources(error)
}

impl Display for WithSources<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        out.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let words = cause.to_string();
            // Many errors contain the text of their source.
            if !said.contains(&words) {
                write!(out, ": {words}")?;
            }
            said = words;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreError;

    #[test]
    fn an_error_names_its_causes_once_each() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = StoreError::from(sqlx::Error::Io(refused));

        assert_eq!(
            with_sources(&error).to_string(),
            "the database is away: error communicating with database: connection refused"
        );
    }
}
