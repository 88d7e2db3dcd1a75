//! Permissions of every route: docs/permissions.md lists the routes, and the domain's table says what is expected.

mod api;
mod invitations;
mod members;
mod pages;
mod trail;

use std::collections::BTreeSet;
use std::path::Path;

use deadbeat_domain::people::permission::Action;
use reqwest::Method;

use crate::contract::document::{Operation, contract};

const PAGE: &str = include_str!("../../../../../docs/permissions.md");

/// A request in the table of docs/permissions.md.
pub struct Request {
    pub operation: Operation,
    /// The permission, or None if the request needs neither a key nor a session.
    pub action: Option<Action>,
    /// True if the request needs a session and no permission: it is about the account alone.
    pub needs_session: bool,
}

impl Request {
    pub fn method(&self) -> Method {
        self.operation.http_method()
    }

    pub fn path(&self) -> &str {
        &self.operation.path
    }

    /// True for a ping URL, whose path contains its key or id.
    fn is_ping_url(&self) -> bool {
        let path = self.path().trim_start_matches("/ping");
        path.starts_with("/{")
    }
}

/// Returns the requests of docs/permissions.md.
pub fn requests() -> Vec<Request> {
    let table = PAGE.split("| request | permission |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let mut words: Vec<&str> = cells[1].trim_matches('`').split(' ').collect();
        let path = words.pop().unwrap();
        let named = cells[2].split('`').nth(1);
        let action = named.map(|name| {
            let action = Action::ALL.into_iter().find(|action| action.name() == name);
            action.unwrap_or_else(|| panic!("{row}: there is no such permission"))
        });
        let needs_session = cells[2] == "session";
        assert!(action.is_some() || needs_session || cells[2] == "–", "{row}");
        words.into_iter().map(move |method| Request {
            operation: Operation {
                method: method.to_lowercase(),
                path: path.to_owned(),
            },
            action,
            needs_session,
        })
    })
    .collect()
}

/// Returns what the pages register with `web::resource("…")`, and single documents with `config.route("…")`.
fn pages() -> BTreeSet<Operation> {
    fn read(folder: &Path, found: &mut BTreeSet<Operation>) {
        // The tests of the contract read these.
        // docs/compat.md says which key each of its requests needs.
        const OTHERS: [&str; 5] = ["api", "compat", "operation", "ping.rs", "assets.rs"];
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if OTHERS
                .iter()
                .any(|other| path.ends_with(Path::new("src").join(other)))
            {
                continue;
            }
            if path.is_dir() {
                read(&path, found);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            // This test would overlook routes that are registered in other ways.
            for other in [
                "web::scope",
                "#[get",
                "#[post",
                "#[route",
                "web::patch(",
                "web::put(",
            ] {
                assert!(!source.contains(other), "{path:?} registers a route with {other}");
            }
            for document in source.split(".route(\"").skip(1) {
                let (path, rest) = document.split_once('"').unwrap();
                assert!(rest.starts_with(", web::get()"), "{path}");
                found.insert(Operation {
                    method: "get".to_owned(),
                    path: path.to_owned(),
                });
            }
            for resource in source.split("web::resource(\"").skip(1) {
                let (path, rest) = resource.split_once('"').unwrap();
                let routes = rest.split(".route(web::").skip(1);
                for route in routes {
                    let method = match route.split_once('(').unwrap() {
                        ("method", rest) => rest.split([':', ')']).nth(2).unwrap(),
                        (method, _) => method,
                    };
                    found.insert(Operation {
                        method: method.to_lowercase(),
                        path: path.to_owned(),
                    });
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../http/src"),
        &mut found,
    );
    found
}

#[test]
fn every_route_has_its_permission_in_the_table() {
    let requests = requests();
    let listed: BTreeSet<Operation> = requests.iter().map(|one| one.operation.clone()).collect();
    assert_eq!(listed.len(), requests.len(), "each route has one row");

    let pages = pages();
    assert!(pages.len() > 10);
    let served: BTreeSet<Operation> = contract().operations().into_iter().chain(pages.clone()).collect();

    assert_eq!(listed, served, "docs/permissions.md lists every route");
    for request in requests.iter().filter(|one| !pages.contains(&one.operation)) {
        // The contract means a key in a header. A key in a URL is not one.
        let action = request.action.filter(|_| !request.is_ping_url());
        let scope = action
            .and_then(Action::least_scope)
            .map(|scope| scope.as_str().to_owned());
        assert_eq!(
            contract().scope(&request.operation),
            scope,
            "{}",
            request.operation
        );
    }
}
