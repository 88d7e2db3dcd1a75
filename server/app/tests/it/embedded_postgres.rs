//! The private PostgreSQL through first starts, restarts and crashes, both as root and as an ordinary user.
//!
//! Needs PostgreSQL's programs on the machine. As root, the temporary folders (0700) also show that the
//! database works below a folder that its user may not enter.

#![allow(clippy::unwrap_used, reason = "a failed step in a helper is a failed test")]

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use deadbeat_app::embedded_postgres::{
    Connection, EmbeddedPostgres, EmbeddedPostgresError, StartOptions, running,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn first_start_makes_a_durable_private_database() {
    let data = data_folder();

    let postgres = start(data.path()).unwrap();

    let connection = postgres.connection();
    assert_eq!(query(connection, "SHOW fsync"), "on");
    assert_eq!(query(connection, "SHOW listen_addresses"), "");
    assert_eq!(query(connection, "SHOW data_checksums"), "on");
    assert_eq!(query(connection, "SHOW server_encoding"), "UTF8");
    assert_eq!(
        query(
            connection,
            "SELECT upper('zoë') || current_database() || current_user"
        ),
        "ZOËdeadbeatdeadbeat"
    );
    let folder = fs::metadata(&connection.socket_dir).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
}

#[test]
fn restarts_keep_the_data_and_leave_no_process() {
    let data = data_folder();
    let postgres = start(data.path()).unwrap();
    query(postgres.connection(), "CREATE TABLE kept (n int)");
    postgres.stop();

    for round in 0..3 {
        let postgres = start(data.path()).unwrap();
        query(postgres.connection(), "INSERT INTO kept VALUES (1)");
        assert_eq!(
            query(postgres.connection(), "SELECT count(*) FROM kept"),
            (round + 1).to_string()
        );
        let pid = postmaster(data.path()).unwrap();
        drop(postgres);
        assert!(!exists(pid), "PostgreSQL outlived its owner");
    }

    assert_eq!(running(data.path()), None);
}

#[test]
fn second_server_on_the_same_folder_is_refused() {
    let data = data_folder();
    let first = start(data.path()).unwrap();

    let second = start(data.path());

    let error = second.unwrap_err();
    assert!(
        matches!(error, EmbeddedPostgresError::AlreadyRunning { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    assert_eq!(query(first.connection(), "SELECT 1"), "1");
}

#[test]
fn command_beside_a_running_server_finds_its_database() {
    let data = data_folder();
    assert_eq!(running(data.path()), None);

    let postgres = start(data.path()).unwrap();
    let found = running(data.path());

    assert_eq!(found.as_ref(), Some(postgres.connection()));
    postgres.stop();
    assert_eq!(running(data.path()), None);
}

#[test]
fn killed_server_takes_postgres_with_it() {
    let data = data_folder();
    let mut server = server_process(data.path());
    let connection = ready(data.path());
    query(&connection, "CREATE TABLE kept AS SELECT 7 AS n");
    let pid = postmaster(data.path()).unwrap();

    server.kill().unwrap();
    server.wait().unwrap();

    if cfg!(target_os = "linux") {
        wait_for("PostgreSQL to end by itself", || !exists(pid) || is_zombie(pid));
        assert!(
            postmaster(data.path()).is_none(),
            "the file stays only after an unclean end"
        );
    }
    let again = start(data.path()).unwrap();
    assert_eq!(query(again.connection(), "SELECT n FROM kept"), "7");
}

#[test]
fn start_right_after_a_kill_waits_for_the_earlier_postgres() {
    let data = data_folder();
    let mut server = server_process(data.path());
    for n in 0..3 {
        query(&ready(data.path()), &format!("CREATE TABLE kept_{n} ()"));
        server.kill().unwrap();
        server.wait().unwrap();
        server = server_process(data.path());
    }

    let kept = query(
        &ready(data.path()),
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'kept%'",
    );

    assert_eq!(kept, "3");
    server.kill().unwrap();
    server.wait().unwrap();
    start(data.path()).unwrap(); // ends the remaining processes before the folder is removed
}

#[test]
fn kill_of_server_and_postgres_loses_nothing_committed() {
    let data = data_folder();
    let mut server = server_process(data.path());
    let connection = ready(data.path());
    query(
        &connection,
        "CREATE TABLE kept AS SELECT n FROM generate_series(1, 10000) AS n",
    );

    kill(postmaster(data.path()).unwrap(), Signal::SIGKILL).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();

    let again = start(data.path()).unwrap();
    assert_eq!(query(again.connection(), "SELECT count(*) FROM kept"), "10000");
}

#[test]
fn killed_postgres_is_started_again() {
    let data = data_folder();
    let postgres = start(data.path()).unwrap();
    query(postgres.connection(), "CREATE TABLE kept AS SELECT 7 AS n");
    let pid = postmaster(data.path()).unwrap();

    kill(pid, Signal::SIGKILL).unwrap();

    wait_for("PostgreSQL to be back", || {
        running(data.path()).is_some() && postmaster(data.path()) != Some(pid)
    });
    assert_eq!(query(postgres.connection(), "SELECT n FROM kept"), "7");
}

#[test]
fn stale_pid_file_naming_a_stranger_is_no_obstacle() {
    let data = data_folder();
    start(data.path()).unwrap().stop();
    let owner = fs::metadata(data.path().join("postgres")).unwrap();
    let mut stranger = Command::new("sleep");
    stranger.arg("600").stdin(Stdio::null());
    if nix::unistd::geteuid().is_root() {
        // PostgreSQL only considers processes of its own user.
        stranger.uid(owner.uid()).gid(owner.gid());
    }
    let mut stranger = stranger.spawn().unwrap();
    let folder = data.path().join("postgres");
    let stale = format!(
        "{}\n{}\n1790000000\n5432\n.\n\n  5432001 5\nready   \n",
        stranger.id(),
        folder.display()
    );
    for name in ["postmaster.pid", ".s.PGSQL.5432.lock"] {
        fs::write(folder.join(name), &stale).unwrap();
        std::os::unix::fs::chown(folder.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    let started = start(data.path());

    let is_spared = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(query(started.unwrap().connection(), "SELECT 1"), "1");
    assert!(is_spared);
}

#[test]
fn folder_too_long_for_a_socket_works() {
    let data = data_folder();
    let deep = data
        .path()
        .join("a-rather-long-folder-name-".repeat(5))
        .join("with space & ünïcode");

    let postgres = start(&deep).unwrap();

    assert_eq!(query(postgres.connection(), "SELECT 1"), "1");
    assert_eq!(running(&deep).as_ref(), Some(postgres.connection()));
    let socket_dir = postgres.connection().socket_dir.clone();
    postgres.stop();
    assert!(!socket_dir.exists());
}

#[test]
fn unfinished_first_start_is_cleared_away() {
    let data = data_folder();
    fs::create_dir_all(data.path().join("postgres.new-1/base")).unwrap();

    let postgres = start(data.path()).unwrap();

    assert_eq!(query(postgres.connection(), "SELECT 1"), "1");
    let mut names: Vec<_> = fs::read_dir(data.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["postgres", "postgres.lock", "postgres.log"]);
}

#[test]
fn database_of_another_version_is_refused_with_advice() {
    let data = data_folder();
    fs::create_dir(data.path().join("postgres")).unwrap();
    fs::write(data.path().join("postgres/PG_VERSION"), "8\n").unwrap();

    let error = start(data.path()).unwrap_err();

    assert!(
        matches!(error, EmbeddedPostgresError::VersionMismatch { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("apt-get install postgresql-8"),
        "{error}"
    );
}

#[test]
fn folder_with_something_else_in_it_is_left_alone() {
    let data = data_folder();
    fs::create_dir(data.path().join("postgres")).unwrap();
    fs::write(data.path().join("postgres/notes.txt"), "mine").unwrap();

    let error = start(data.path()).unwrap_err();

    assert!(
        matches!(error, EmbeddedPostgresError::NotADatabase { .. }),
        "{error}"
    );
    assert_eq!(
        fs::read_to_string(data.path().join("postgres/notes.txt")).unwrap(),
        "mine"
    );
}

#[test]
fn broken_configuration_is_shown_in_postgres_own_words() {
    let data = data_folder();
    start(data.path()).unwrap().stop();
    fs::write(
        data.path().join("postgres/postgresql.auto.conf"),
        "work_mem = 'plenty'\n",
    )
    .unwrap();

    let error = start(data.path()).unwrap_err();

    assert!(
        error
            .to_string()
            .contains(r#"invalid value for parameter "work_mem": "plenty""#),
        "{error}"
    );
    fs::write(data.path().join("postgres/postgresql.auto.conf"), "").unwrap();
    start(data.path()).unwrap();
}

#[test]
fn unusable_program_folder_is_named() {
    let data = data_folder();

    let options = StartOptions {
        data_dir: data.path(),
        bin_dir: Some(Path::new("/nowhere")),
        launcher: None,
    };
    let error = EmbeddedPostgres::start_with(options).unwrap_err();

    assert!(error.to_string().contains("/nowhere"), "{error}");
}

/// Runs the server process that the kill tests kill; this is not a test. Its working folder is the data folder.
#[test]
#[ignore = "started by the kill tests as a process of its own"]
fn server_process_to_be_killed() {
    let folder = std::env::current_dir().unwrap();
    if folder.join("to-be-killed").exists() {
        let _postgres = start(&folder).unwrap();
        thread::sleep(LIMIT * 2); // bounded, should the parent itself be killed
    }
}

fn server_process(data_dir: &Path) -> Child {
    fs::write(data_dir.join("to-be-killed"), "").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "embedded_postgres::server_process_to_be_killed",
        ])
        .current_dir(data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn start(data_dir: &Path) -> Result<EmbeddedPostgres, EmbeddedPostgresError> {
    let launcher = Path::new(env!("CARGO_BIN_EXE_deadbeat"));
    EmbeddedPostgres::start_with(StartOptions {
        data_dir,
        bin_dir: None,
        launcher: Some(launcher),
    })
}

fn data_folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn ready(data_dir: &Path) -> Connection {
    wait_for("the server process to be ready", || running(data_dir).is_some());
    running(data_dir).unwrap()
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < LIMIT, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn postmaster(data_dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    Some(Pid::from_raw(text.lines().next()?.parse().ok()?))
}

fn exists(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

/// True if the process has ended, but its new parent does not collect it. In some containers, the first process never does.
fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Runs one statement and returns the first column of the first row. This part of PostgreSQL's protocol
/// needs no client library.
fn query(connection: &Connection, sql: &str) -> String {
    let socket = connection
        .socket_dir
        .join(format!(".s.PGSQL.{}", connection.port));
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut startup = 196_608_u32.to_be_bytes().to_vec(); // protocol 3.0
    for word in ["user", &connection.user, "database", &connection.database, ""] {
        startup.extend(word.bytes().chain([0]));
    }
    send(&mut stream, None, &startup);
    let mut is_sent = false;
    let mut answer = None;
    loop {
        let (kind, body) = receive(&mut stream).unwrap();
        match kind {
            b'E' => panic!("{sql}: {}", String::from_utf8_lossy(&body)),
            b'Z' if is_sent => return answer.unwrap_or_default(),
            b'Z' => {
                send(&mut stream, Some(b'Q'), &[sql.as_bytes(), &[0]].concat());
                is_sent = true;
            }
            // Number of columns (2 bytes), length of the first (4), its text.
            b'D' if answer.is_none() => {
                let length = u32::from_be_bytes(body[2..6].try_into().unwrap()) as usize;
                answer = Some(String::from_utf8(body[6..6 + length].to_vec()).unwrap());
            }
            _ => {}
        }
    }
}

fn send(stream: &mut UnixStream, kind: Option<u8>, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    let message = [kind.as_slice(), &length, body].concat();
    stream.write_all(&message).unwrap();
}

fn receive(stream: &mut UnixStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}
