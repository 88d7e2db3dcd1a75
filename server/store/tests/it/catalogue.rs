//! Every primary, unique and foreign key of a project's data contains its project. The test reads the keys from the migrated database.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgPool;

use crate::tables::{OF_ALL, OF_HOME, OF_PROJECTS};

/// Unique indexes without a project, and the reason for them.
///
/// The `ON CONFLICT` of the last release names the columns of each. The next release can drop these indexes.
const BEFORE: [&str; 6] = [
    "attempt_before",
    "baseline_before",
    "host_part_before",
    "incident_before",
    "incident_member_before",
    "run_before",
];

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn every_key_of_a_projects_data_contains_the_project(pool: PgPool) {
    // `indkey` also contains 0 for an expression, which is not a column.
    let keys: Vec<(String, String, Vec<String>)> = sqlx::query_as(
        "SELECT relation.relname::text, key.relname::text,
            array(SELECT attname::text FROM pg_attribute WHERE attrelid = relation.oid AND attnum = ANY(indkey::int2[]))
        FROM pg_index
            JOIN pg_class AS key ON key.oid = indexrelid
            JOIN pg_class AS relation ON relation.oid = indrelid
        WHERE relation.relnamespace = 'public'::regnamespace AND NOT relation.relispartition AND indisunique
        UNION ALL
        SELECT relation.relname::text, conname::text,
            array(SELECT attname::text FROM pg_attribute WHERE attrelid = relation.oid AND attnum = ANY(conkey))
        FROM pg_constraint JOIN pg_class AS relation ON relation.oid = conrelid
        WHERE relation.relnamespace = 'public'::regnamespace AND NOT relation.relispartition AND contype = 'f'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let of_projects: BTreeSet<&str> = OF_PROJECTS.iter().copied().collect();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let mut without = BTreeSet::new();

    for (table, key, columns) in &keys {
        if of_projects.contains(table.as_str()) {
            *count.entry(table).or_default() += 1;
            if !columns.iter().any(|column| column == "project_id") {
                without.insert(key.as_str());
            }
        }
    }

    assert_eq!(without, BTreeSet::from(BEFORE));
    let keyless: Vec<&&str> = OF_PROJECTS
        .iter()
        .filter(|table| !count.contains_key(**table))
        .collect();
    assert!(
        keyless.is_empty(),
        "no such table, or one without a key: {keyless:?}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn each_table_says_whether_its_rows_are_a_projects(pool: PgPool) {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
        ORDER BY relname COLLATE \"C\"",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let mut known: Vec<&str> = [OF_PROJECTS, OF_HOME, OF_ALL].concat();
    known.sort_unstable();

    assert_eq!(
        tables, known,
        "a new table belongs to one of the lists in tables.rs"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_foreign_key_between_a_projects_tables_compares_the_project(pool: PgPool) {
    let keys: Vec<(String, String, Vec<String>, Vec<String>)> = sqlx::query_as(
        "SELECT conrelid::regclass::text, confrelid::regclass::text,
            array(SELECT attname::text FROM UNNEST(conkey) WITH ORDINALITY AS own (number, place)
                JOIN pg_attribute ON attrelid = conrelid AND attnum = own.number ORDER BY place),
            array(SELECT attname::text FROM UNNEST(confkey) WITH ORDINALITY AS other (number, place)
                JOIN pg_attribute ON attrelid = confrelid AND attnum = other.number ORDER BY place)
        FROM pg_constraint
        WHERE contype = 'f' AND conparentid = 0",
    )
    .fetch_all(&pool)
    .await
    .unwrap();

    for (table, other, own, referenced) in &keys {
        if OF_PROJECTS.contains(&table.as_str()) && OF_PROJECTS.contains(&other.as_str()) {
            let place = own.iter().position(|column| column == "project_id");
            let to = place.and_then(|place| referenced.get(place));
            assert_eq!(
                to.map(String::as_str),
                Some("project_id"),
                "{table} refers to {other}"
            );
        }
    }
    assert!(keys.len() > 10, "{keys:?}");
}
