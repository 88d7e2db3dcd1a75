//! Guessing passwords: who is slowed down, and how much.
//!
//! A wrong try costs a token of three buckets: of its address, of its account, and of the two together. Who finds one empty has to wait
//! some seconds, and nobody is shut out: a refused try costs nothing. An account that was signed in to from an address lately is known
//! there. Tries for a known account count only with the two together, so that nobody elsewhere, and nobody else at that address, can
//! slow its owner down.

use chrono::TimeDelta;

use crate::people::rate::Rate;

/// How long an account is known at an address after it signed in there.
pub const KNOWN_FOR: TimeDelta = TimeDelta::days(30);

/// Addresses at which one account is known; the ones that were used longest ago are forgotten.
pub const KNOWN_ADDRESSES: i64 = 50;

/// Wrong tries of one account from one address.
pub const PAIR: Rate = Rate {
    burst: 10.0,
    per_second: 1.0 / 6.0,
};
/// Wrong tries of one account from an address where it is known: more than a person types.
pub const KNOWN_PAIR: Rate = Rate {
    burst: 20.0,
    per_second: 0.5,
};
/// Wrong tries from one address, whatever the account.
pub const ADDRESS: Rate = Rate {
    burst: 30.0,
    per_second: 0.5,
};
/// Wrong tries of one account, whatever the address.
pub const ACCOUNT: Rate = Rate {
    burst: 30.0,
    per_second: 0.5,
};
