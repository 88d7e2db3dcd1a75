//! Limits on guessing passwords.
//!
//! A wrong try takes a token from three buckets: that of its address, that of its account, and that of the two
//! together. If a bucket is empty, the client must wait some seconds. A refused try takes no token, so nobody is locked
//! out.
//!
//! An account is known at an address from which somebody signed in to it lately. A wrong try for a known account counts
//! only in the bucket of the two together. So neither a stranger elsewhere nor a stranger at that address can slow the
//! owner down.

use chrono::TimeDelta;

use crate::people::rate::Rate;

/// How long an account is known at an address after a sign-in from there.
pub const KNOWN_FOR: TimeDelta = TimeDelta::days(30);

/// Addresses at which one account is known. Of more, the server forgets those that were used longest ago.
pub const KNOWN_ADDRESSES: i64 = 50;

/// Wrong tries for one account from one address.
pub const PAIR: Rate = Rate {
    burst: 10.0,
    per_second: 1.0 / 6.0,
};
/// Wrong tries for one account from an address where it is known: more than a person types.
pub const KNOWN_PAIR: Rate = Rate {
    burst: 20.0,
    per_second: 0.5,
};
/// Codes of the second factor for one account, right or wrong, whatever the address: after ten at once, 36 an hour. A code of three steps is
/// guessed with a chance of 3 in a million, so guessing takes a year on average.
pub const FACTOR: Rate = Rate {
    burst: 10.0,
    per_second: 0.01,
};
/// Wrong tries from one address, whatever the account.
pub const ADDRESS: Rate = Rate {
    burst: 30.0,
    per_second: 0.5,
};
/// Wrong tries for one account, whatever the address.
pub const ACCOUNT: Rate = Rate {
    burst: 30.0,
    per_second: 0.5,
};
