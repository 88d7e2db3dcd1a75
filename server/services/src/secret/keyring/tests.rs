use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn id(text: &str) -> String {
    Key::parse(text).unwrap().id().to_owned()
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_first_key_of_the_setting_seals_and_all_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let made = Key::generate();
    write(&path, &format!("# mine\n\n{}\n  {ONE}  \n", *made), 0o600);

    let ring = Keyring::load(&format!("{ONE}, {OTHER},{ONE}"), Some(path.clone())).unwrap();

    assert_eq!(ring.ids()[..2], [id(ONE), id(OTHER)]);
    assert_eq!(ring.ids().last(), Some(&id(&made)));
    assert_eq!(ring.first().unwrap().id(), id(ONE));
    for known in [ONE, OTHER, &made] {
        assert_eq!(ring.get(&id(known)).unwrap().id(), id(known));
    }
    assert!(ring.get("000000000000").is_none());
    assert_eq!(
        Keyring::load("", Some(path)).unwrap().first().unwrap().id(),
        id(&made)
    );
    assert!(Keyring::load("", None).unwrap().first().is_none());
}

#[test]
fn what_is_no_key_is_refused_and_never_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let short = "c2hvcnQtaHVudGVyMg==";

    let faults = [
        Keyring::load(&format!("{ONE},{short}"), None).unwrap_err(),
        Keyring::load("hunter2!", None).unwrap_err(),
        {
            write(&path, &format!("{ONE}\n{short}\n"), 0o600);
            Keyring::load("", Some(path.clone())).unwrap_err()
        },
        {
            write(&path, "# nothing\n", 0o600);
            Keyring::load("", Some(path.clone())).unwrap_err()
        },
        {
            write(&path, ONE, 0o644);
            Keyring::load("", Some(path.clone())).unwrap_err()
        },
    ];

    let texts = faults.map(|fault| fault.to_string());
    assert!(
        texts[0].starts_with("DEADBEAT_SECRET_KEY: key 2 has 13 bytes; 32 bytes"),
        "{}",
        texts[0]
    );
    assert!(
        texts[1].starts_with("DEADBEAT_SECRET_KEY: key 1 is neither"),
        "{}",
        texts[1]
    );
    assert!(texts[2].contains("key 2 has 13 bytes"), "{}", texts[2]);
    assert!(texts[3].contains("this file has no key"), "{}", texts[3]);
    assert!(
        texts[4].contains("mode 0644") && texts[4].contains(&format!("chmod 600 {}", path.display())),
        "{}",
        texts[4]
    );
    for text in texts {
        assert!(
            !text.contains(short) && !text.contains("hunter2") && !text.contains("0102"),
            "{text}"
        );
    }
}

#[test]
fn of_many_that_make_the_file_at_once_all_have_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").join(FILE);

    let made: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                scope.spawn(move || {
                    let ring = Keyring::load("", Some(path)).unwrap();
                    ring.make_file().unwrap();
                    ring.first().unwrap().id().to_owned()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    assert!(made.iter().all(|id| *id == made[0]), "{made:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_running_process_finds_the_key_that_a_rotation_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let running = Keyring::load("", Some(path.clone())).unwrap();
    running.make_file().unwrap();
    let old = running.first().unwrap().id().to_owned();
    let rotating = Keyring::load("", Some(path.clone())).unwrap();

    let lock = rotating.lock_file().unwrap().unwrap();
    rotating.add_to_file(&lock).unwrap();

    let new = rotating.first().unwrap().id().to_owned();
    assert_eq!(rotating.ids(), [new.clone(), old.clone()]);
    assert_eq!(running.first().unwrap().id(), old);
    assert_eq!(running.get(&new).unwrap().id(), new);
    assert_eq!(running.first().unwrap().id(), new);
    // A second rotation at the same time would lose this one's key.
    let second = Keyring::load("", Some(path)).unwrap();
    assert!(matches!(second.lock_file(), Err(KeyError::Busy(_))));
    drop(lock);
    assert!(second.lock_file().unwrap().is_some());
}
