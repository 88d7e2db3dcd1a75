//! Common code of the tests: the parameters of forms, and an alert that a person can acknowledge by a link.

use std::collections::HashMap;

use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_testkit::receiver::Request;
use url::form_urlencoded;

use crate::alert::outbox::samples::{self, Sample};

/// The link of [`acknowledgeable`].
const ACKNOWLEDGE: &str = "https://deadbeat.example.org/acknowledge?token=0123456789abcdef";

/// Returns every sample, and an alert with a link to acknowledge its incident.
pub(super) fn samples() -> impl Iterator<Item = Message> {
    samples::all().into_iter().chain([acknowledgeable()])
}

fn acknowledgeable() -> Message {
    let mut message = Sample::monitor().opened();
    let Event::Incident(event) = &mut message.event else {
        panic!("an incident has begun")
    };
    event.incident.acknowledge_url = Some(ACKNOWLEDGE.to_owned());
    message
}

/// Returns the parameters of a request. Each has one value.
pub(super) fn form_of(request: &Request) -> HashMap<String, String> {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(&request.body).into_owned().collect();
    let count = pairs.len();
    let form: HashMap<String, String> = pairs.into_iter().collect();
    assert_eq!(form.len(), count, "a parameter is repeated");
    form
}
