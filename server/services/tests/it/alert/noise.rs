//! Fewer alerts for one fault: thresholds, damping of flaps, storms. One story for each row of the tables in docs/alerting.md, over a real
//! database with a stopped clock.

mod flapping;
mod thresholds;
