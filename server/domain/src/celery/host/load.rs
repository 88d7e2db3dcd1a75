//! Decides whether a worker gets the CPU time that it needs.
//!
//! A high load of the host proves nothing: a worker that mostly waits for a network still gets its CPU time. A worker
//! starves if its own processes are ready to run, but wait for a CPU most of the time, while other processes use the
//! CPUs. Linux counts both times for each process.

/// A host is overloaded if this many processes per CPU run or are ready to run.
const OVERLOAD: f64 = 2.0;
/// A process that waits for a CPU for this share of the time gets too little CPU time.
const WAITS: f64 = 0.5;
/// A worker that uses this share of its host's CPUs causes the load itself.
const TAKES: f64 = 0.5;

/// The load of a worker's host, and the worker's share in it, as of the worker's last report.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostLoad {
    /// A name of the machine, which is the same in all containers of one machine. None: the worker does not report it.
    pub machine: Option<String>,
    /// Processes per CPU that run or are ready to run: the average of a minute.
    pub per_cpu: Option<f64>,
    /// The share of the time, 0 to 1, in which a process of the worker was ready to run but waited for a CPU. The value
    /// of the process that waited most.
    pub waits: Option<f64>,
    /// The share of the host's CPUs, 0 to 1, that the worker's processes used.
    pub takes: Option<f64>,
}

impl HostLoad {
    /// True if more processes want a CPU of the host than it has.
    #[must_use]
    pub fn is_overload(&self) -> bool {
        self.per_cpu.is_some_and(|load| load >= OVERLOAD)
    }

    /// True if other processes take the CPUs that the worker needs.
    #[must_use]
    pub fn is_starving(&self) -> bool {
        let takes = self.takes.unwrap_or(0.0);
        self.is_overload() && self.waits.is_some_and(|waits| waits >= WAITS) && takes < TAKES
    }

    /// True if both workers run on one machine.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.machine.is_some() && self.machine == other.machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(per_cpu: f64, waits: f64, takes: f64) -> HostLoad {
        HostLoad {
            machine: Some("m1".to_owned()),
            per_cpu: Some(per_cpu),
            waits: Some(waits),
            takes: Some(takes),
        }
    }

    #[test]
    fn a_worker_starves_where_it_waits_for_cpus_that_others_have() {
        for (what, load, overload, starving) in [
            ("nothing is known", HostLoad::default(), false, false),
            ("other processes use the CPUs", load(2.0, 0.5, 0.49), true, true),
            (
                "the load is high, but it gets its CPU time",
                load(9.0, 0.49, 0.0),
                true,
                false,
            ),
            ("its own tasks take the CPUs", load(9.0, 0.9, 0.5), true, false),
            (
                "it waits although the host has room: a limit of its container",
                load(1.9, 0.9, 0.1),
                false,
                false,
            ),
            (
                "an older SDK",
                HostLoad {
                    waits: None,
                    takes: None,
                    ..load(9.0, 0.0, 0.0)
                },
                true,
                false,
            ),
            (
                "the number of CPUs is not known",
                HostLoad {
                    takes: None,
                    ..load(9.0, 0.9, 0.0)
                },
                true,
                true,
            ),
        ] {
            assert_eq!(
                (load.is_overload(), load.is_starving()),
                (overload, starving),
                "{what}"
            );
        }
    }

    #[test]
    fn workers_are_beside_one_another_on_a_machine_that_is_known() {
        let (here, nowhere) = (load(1.0, 0.0, 0.0), HostLoad::default());
        assert!(here.is_beside(&here));
        assert!(!nowhere.is_beside(&nowhere));
        assert!(!here.is_beside(&nowhere));
    }
}
