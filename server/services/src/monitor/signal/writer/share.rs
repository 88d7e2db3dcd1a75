//! Limits how many signals of one address a batch takes, because the clients of all other addresses wait for its commit.

use std::collections::HashMap;

use super::{BATCH, WaitingSignal};
use crate::monitor::signal::incoming::Address;

/// The most signals of one address in a batch. Measured beside 512 simultaneous failures of one monitor (`scripts/soak -k neighbour`).
const OF_ADDRESS: usize = 64;

/// Splits signals into those of this batch and those that wait for the next one. Keeps the order of an address's signals.
pub(super) fn split(signals: Vec<WaitingSignal>) -> (Vec<WaitingSignal>, Vec<WaitingSignal>) {
    // Most batches are small and need no split.
    if signals.len() <= OF_ADDRESS {
        return (signals, Vec::new());
    }
    let mut taken: HashMap<Address, usize> = HashMap::new();
    let mut room = BATCH;
    signals.into_iter().partition(|one| {
        // An address has at most one entry in `taken`, however many signals it has.
        let count = match taken.get_mut(&one.incoming.address) {
            Some(count) => count,
            None => taken.entry(one.incoming.address.clone()).or_default(),
        };
        // Once a signal of an address waits, all later ones do: neither limit is ever raised again in this batch.
        if room == 0 || *count == OF_ADDRESS {
            return false;
        }
        *count += 1;
        room -= 1;
        true
    })
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::ids::PingId;
    use tokio::sync::oneshot;

    use super::*;
    use crate::monitor::signal::writer::tests::signal;

    fn waiting(address: &Address, number: usize) -> WaitingSignal {
        let mut incoming = signal();
        incoming.address = address.clone();
        incoming.body = number.to_string().into_bytes();
        WaitingSignal {
            incoming: Box::new(incoming),
            answer: oneshot::channel().0,
            held_since: None,
        }
    }

    fn number(one: &WaitingSignal) -> usize {
        std::str::from_utf8(&one.incoming.body).unwrap().parse().unwrap()
    }

    #[test]
    fn a_flood_takes_its_share_and_all_others_go_in_the_same_batch() {
        let (flood, other) = (
            Address::Ping(PingId::generate()),
            Address::Ping(PingId::generate()),
        );
        let last = OF_ADDRESS * 3;
        let mut signals: Vec<WaitingSignal> = (0..last).map(|number| waiting(&flood, number)).collect();
        signals.push(waiting(&other, last));

        let (now, later) = split(signals);

        let numbers = |signals: &[WaitingSignal]| -> Vec<usize> { signals.iter().map(number).collect() };
        assert_eq!(numbers(&now), (0..OF_ADDRESS).chain([last]).collect::<Vec<_>>());
        assert_eq!(numbers(&later), (OF_ADDRESS..last).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_is_full_at_its_limit_and_every_address_keeps_its_order() {
        let addresses: Vec<Address> = (0..32).map(|_| Address::Ping(PingId::generate())).collect();
        let signals = (0..BATCH * 3).map(|number| waiting(&addresses[number % addresses.len()], number));

        let (now, later) = split(signals.collect());

        assert_eq!((now.len(), later.len()), (BATCH, BATCH * 2));
        assert_eq!(
            now.iter().map(number).collect::<Vec<_>>(),
            (0..BATCH).collect::<Vec<_>>()
        );
        assert!(later.iter().map(number).eq(BATCH..BATCH * 3));
    }
}
