//! Every statement names the project of the rows that it reads or writes.
//!
//! The query data of the SQL macros contain the text of every statement. A small reader (not a grammar of SQL) splits a text into its queries. It
//! finds, for each table of a project's data in them, whether a condition or an insert names the column `project_id` of that table.

mod exceptions;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::tables::of_projects;
use exceptions::{FIGURES_OF_ALL, NAMED_BY_SECRET, TAKE_OF_ALL};

/// A word, a symbol, or a group in parentheses.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Word(String),
    Symbol(char),
    Group(Vec<Node>),
}

impl Node {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }

    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// Splits a statement into nodes. Drops comments, and turns a literal into a symbol.
fn read(text: &str) -> Vec<Node> {
    let mut open: Vec<Vec<Node>> = vec![Vec::new()];
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        let node = match next {
            '-' if rest.peek() == Some(&'-') => {
                rest.by_ref().find(|char| *char == '\n');
                continue;
            }
            '\'' => {
                rest.by_ref().find(|char| *char == '\'');
                Node::Symbol('\'')
            }
            '"' => {
                let name: String = rest.by_ref().take_while(|char| *char != '"').collect();
                Node::Word(name)
            }
            '(' => {
                open.push(Vec::new());
                continue;
            }
            ')' => Node::Group(open.pop().expect("a parenthesis opens before it closes")),
            char if char.is_alphanumeric() || char == '_' => {
                let mut word = char.to_lowercase().to_string();
                while let Some(char) = rest.next_if(|char| char.is_alphanumeric() || *char == '_') {
                    word.extend(char.to_lowercase());
                }
                Node::Word(word)
            }
            char if char.is_whitespace() => continue,
            char => Node::Symbol(char),
        };
        open.last_mut()
            .expect("the outermost level is never closed")
            .push(node);
    }
    assert_eq!(open.len(), 1, "each parenthesis is closed: {text}");
    open.remove(0)
}

fn is_query(nodes: &[Node]) -> bool {
    match nodes.first() {
        Some(Node::Group(group)) => is_query(group),
        Some(Node::Word(word)) => ["select", "with", "insert", "update", "delete"].contains(&word.as_str()),
        _ => false,
    }
}

/// Returns the tables of projects' data whose project a statement leaves out, and the tables whose `ON CONFLICT` leaves it out.
fn unnamed(nodes: &[Node]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // UNION and similar words join queries. Each query must name its projects.
    for query in nodes.split(|node| ["union", "intersect", "except"].iter().any(|word| node.is(word))) {
        if is_query(query) {
            visit(query, &mut found);
        }
        for node in query {
            if let Node::Group(group) = node {
                found.extend(unnamed(group));
            }
        }
    }
    found
}

/// Words that end the list of tables or a condition.
const CLAUSES: [&str; 19] = [
    "select",
    "where",
    "group",
    "order",
    "having",
    "limit",
    "offset",
    "returning",
    "set",
    "for",
    "window",
    "values",
    "from",
    "join",
    "left",
    "right",
    "inner",
    "cross",
    "on",
];

fn visit(query: &[Node], found: &mut BTreeSet<String>) {
    let mut tables: Vec<(String, String)> = Vec::new();
    let mut named: BTreeSet<Option<String>> = BTreeSet::new();
    let (mut is_list, mut is_condition, mut begins_table) = (false, false, false);
    let mut is_begun = false;
    let mut place = 0;
    while place < query.len() {
        let node = &query[place];
        let before = place.checked_sub(1).map(|place| &query[place]);
        let follows = |word: &str| before.is_some_and(|node| node.is(word));
        match node {
            Node::Word(word)
                if word == "update" && !is_begun && !follows("for") && !follows("key") && !follows("do") =>
            {
                (is_begun, begins_table) = (true, true);
            }
            Node::Word(word) if ["select", "insert", "delete"].contains(&word.as_str()) => is_begun = true,
            Node::Word(word) if word == "into" => begins_table = true,
            Node::Word(word) if word == "from" && !follows("distinct") || word == "join" => {
                (is_list, is_condition, begins_table) = (true, false, true);
            }
            Node::Word(word) if word == "using" => {
                // DELETE … USING names tables, and JOIN … USING (…) names columns of both sides.
                match query.get(place + 1) {
                    Some(Node::Group(columns)) if !is_query(columns) => {
                        if columns.iter().any(|column| column.is("project_id")) {
                            named.extend(tables.iter().rev().take(2).map(|(_, alias)| Some(alias.clone())));
                        }
                    }
                    _ => (is_list, is_condition, begins_table) = (true, false, true),
                }
            }
            Node::Word(word) if word == "where" || word == "having" || (word == "on" && is_list) => {
                is_condition = true;
                begins_table = false;
                is_list = word == "on";
            }
            Node::Word(word) if word == "conflict" => {
                if let Some(Node::Group(columns)) = query.get(place + 1)
                    && let Some((table, _)) = tables.first()
                    && !columns.iter().any(|column| column.is("project_id"))
                {
                    found.insert(format!("{table} (on conflict)"));
                }
                is_condition = false;
            }
            Node::Word(word) if ["only", "lateral", "as"].contains(&word.as_str()) => {}
            // … IS DISTINCT FROM …
            Node::Word(word) if word == "from" && follows("distinct") => {}
            Node::Word(word) if begins_table => {
                begins_table = false;
                if of_projects().contains(word.as_str()) {
                    let mut next = place + 1;
                    if query.get(next).is_some_and(|node| node.is("as")) {
                        next += 1;
                    }
                    let alias = query.get(next).and_then(Node::word);
                    let alias = alias.filter(|word| {
                        !CLAUSES.contains(word) && !["using", "default", "union"].contains(word)
                    });
                    let alias = alias.unwrap_or(word).to_owned();
                    tables.push((word.clone(), alias.clone()));
                    if before.is_some_and(|node| node.is("into")) {
                        let columns = query[next..].iter().find_map(|node| match node {
                            Node::Group(columns) => Some(columns),
                            _ => None,
                        });
                        if columns.is_some_and(|columns| columns.iter().any(|column| column.is("project_id")))
                        {
                            named.insert(Some(alias));
                        }
                    }
                }
            }
            Node::Word(word) if CLAUSES.contains(&word.as_str()) => {
                (is_list, is_condition, begins_table) = (false, false, false);
            }
            Node::Symbol(',') if is_list => (begins_table, is_condition) = (true, false),
            Node::Group(_) => begins_table = false,
            _ => {}
        }
        if is_condition {
            note_named(
                std::slice::from_ref(node),
                before,
                query.get(place.wrapping_sub(2)),
                &mut named,
            );
        }
        place += 1;
    }
    let is_alone = tables.len() == 1;
    for (table, alias) in tables {
        if !(named.contains(&Some(alias)) || is_alone && named.contains(&None)) {
            found.insert(table);
        }
    }
}

/// Notes the tables whose `project_id` a part of a condition names. None: the column has no table name.
fn note_named(
    nodes: &[Node],
    dot: Option<&Node>,
    owner: Option<&Node>,
    named: &mut BTreeSet<Option<String>>,
) {
    for (place, node) in nodes.iter().enumerate() {
        match node {
            Node::Word(word) if word == "project_id" => {
                let dot = if place == 0 { dot } else { nodes.get(place - 1) };
                let owner = match place {
                    0 => owner,
                    1 => None,
                    _ => nodes.get(place - 2),
                };
                let owner = owner
                    .filter(|_| dot == Some(&Node::Symbol('.')))
                    .and_then(Node::word);
                named.insert(owner.map(str::to_owned));
            }
            Node::Group(group) if !is_query(group) => note_named(group, None, None, named),
            _ => {}
        }
    }
}

fn statements() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let mut texts: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let data: Value = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
            data["query"].as_str().unwrap().to_owned()
        })
        .collect();
    texts.sort();
    texts
}

#[test]
fn every_statement_names_the_project_of_its_rows() {
    let statements = statements();
    assert!(statements.len() > 100, "the query data are there");
    let exceptions = [TAKE_OF_ALL, FIGURES_OF_ALL, NAMED_BY_SECRET].concat();
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for text in &statements {
        let unnamed = unnamed(&read(text));
        if unnamed.is_empty() {
            continue;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        let mut excepted = BTreeSet::new();
        for (part, tables) in exceptions.iter().filter(|(part, _)| text.contains(part)) {
            used.insert(*part);
            excepted.extend(tables.iter().map(|table| (*table).to_owned()));
        }
        if excepted != unnamed {
            faults.push(format!("{unnamed:?} of: {text}"));
        }
    }
    let stale: Vec<&str> = exceptions
        .iter()
        .map(|(part, _)| *part)
        .filter(|part| !used.contains(part))
        .collect();

    assert!(
        faults.is_empty(),
        "{} statements leave out a project:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert!(stale.is_empty(), "exceptions that no statement needs: {stale:#?}");
}

#[test]
fn the_reader_sees_which_table_is_left_out() {
    let table: [(&str, &[&str]); 16] = [
        ("SELECT id FROM beat WHERE id = $1", &["beat"]),
        ("SELECT id FROM beat WHERE project_id = $1 AND id = $2", &[]),
        ("SELECT project_id FROM beat WHERE id = $2", &["beat"]),
        (
            "SELECT 1 FROM beat JOIN worker ON worker.project_id = beat.project_id",
            &[],
        ),
        ("SELECT 1 FROM beat JOIN worker USING (project_id)", &[]),
        (
            "SELECT 1 FROM beat JOIN worker ON worker.app = beat.name WHERE beat.project_id = $1",
            &["worker"],
        ),
        (
            "SELECT 1 FROM beat, worker AS own WHERE own.project_id = beat.project_id",
            &[],
        ),
        (
            "SELECT 1 FROM beat b WHERE (b.project_id, b.id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
            &[],
        ),
        (
            "UPDATE beat SET name = $1 FROM UNNEST($1) AS new (id, project_id) WHERE beat.id = new.id",
            &["beat"],
        ),
        (
            "INSERT INTO beat (id, project_id) SELECT id, project_id FROM broker WHERE id = $1",
            &["broker"],
        ),
        ("INSERT INTO beat (id, name) VALUES ($1, $2)", &["beat"]),
        (
            "INSERT INTO beat (id, project_id) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            &["beat (on conflict)"],
        ),
        (
            "WITH old AS (SELECT id FROM beat WHERE id = $1) DELETE FROM beat USING old WHERE beat.project_id = $2",
            &["beat"],
        ),
        (
            "SELECT 1 WHERE EXISTS (SELECT FROM beat WHERE id = $1) -- project_id",
            &["beat"],
        ),
        (
            "SELECT 1 FROM beat WHERE project_id = $1 UNION SELECT 1 FROM worker WHERE app = 'project_id'",
            &["worker"],
        ),
        (
            "SELECT id FROM beat WHERE name IS DISTINCT FROM worker AND project_id = $1 FOR UPDATE OF beat",
            &[],
        ),
    ];
    for (text, wanted) in table {
        let wanted: BTreeSet<String> = wanted.iter().map(|table| (*table).to_owned()).collect();
        assert_eq!(unnamed(&read(text)), wanted, "{text}");
    }
}
