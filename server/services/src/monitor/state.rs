//! Loads and writes the states of locked monitors.

use deadbeat_store::monitor::batch::Batch;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::{StoreResult, Tx};

pub(crate) async fn load_runs(tx: &mut Tx, monitor: &mut Monitor) -> StoreResult<()> {
    deadbeat_store::monitor::run::load_into(tx, std::slice::from_mut(monitor), &[]).await
}

/// Writes a monitor's state, with its open runs' deadlines. Its runs must be loaded.
pub(crate) async fn write_state(tx: &mut Tx, monitor: &Monitor) -> StoreResult<()> {
    write_states(tx, [monitor]).await
}

/// Writes monitors' states, with their open runs' deadlines. Their runs must be loaded.
pub(crate) async fn write_states(
    tx: &mut Tx,
    monitors: impl IntoIterator<Item = &Monitor>,
) -> StoreResult<()> {
    let monitors: Vec<&Monitor> = monitors.into_iter().collect();
    if monitors.is_empty() {
        return Ok(());
    }
    let runs_of = |monitor: &&Monitor| {
        let key = monitor.key();
        monitor.state.runs.clone().into_iter().map(move |run| (key, run))
    };
    let batch = Batch {
        pings: Vec::new(),
        runs: monitors.iter().flat_map(runs_of).collect(),
        monitors: monitors.iter().map(|monitor| monitor.changed()).collect(),
        moves_check: true,
        writer: None,
    };
    deadbeat_store::monitor::batch::write(tx, &batch).await
}
