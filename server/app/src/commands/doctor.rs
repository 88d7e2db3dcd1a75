//! `deadbeat doctor`: checks whether a server would have all that it needs.

use std::net::TcpListener;

use super::secrets;
use super::serve::senders;
use crate::config::ServeConfig;
use crate::database::Database;
use crate::embedded_postgres;
use crate::zone_files::Adopted;

/// Makes all checks, and prints a line for each. Fails if a check failed.
///
/// # Errors
/// If at least one check failed.
pub async fn run(config: &ServeConfig, zone_data: &Adopted) -> anyhow::Result<()> {
    let mut faults = 0;
    let mut report = |what: &str, found: anyhow::Result<String>| match found {
        Ok(found) => println!("ok       {what}: {found}"),
        Err(error) => {
            faults += 1;
            println!("MISSING  {what}: {error:#}");
        }
    };

    let beside = config.database.database_url().is_none()
        && embedded_postgres::running(&config.database.data_dir).is_some();
    let database = Database::of_command(&config.database).await;
    report(
        "database",
        database
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error:#}"))
            .map(
                |database| match (config.database.database_url(), database.is_embedded()) {
                    (Some(_), _) => "DEADBEAT_DATABASE_URL".to_owned(),
                    (None, true) => format!("embedded, in {}", config.database.data_dir.display()),
                    (None, false) => {
                        format!(
                            "embedded, in {}, run by another server",
                            config.database.data_dir.display()
                        )
                    }
                },
            ),
    );
    if let Ok(database) = database {
        report("schema", check(&database).await);
        report(
            "secrets",
            secrets::state(&config.secrets, &config.database, &database).await,
        );
        database.stop().await;
    }
    report("listen", listen(config, beside));
    let mail = senders(config).map_err(anyhow::Error::from);
    report(
        "mail",
        mail.map(|_| {
            match config.smtp_url() {
                Some(_) => "DEADBEAT_SMTP_URL is set",
                None => "off: DEADBEAT_SMTP_URL is not set",
            }
            .to_owned()
        }),
    );
    report(
        "private networks",
        Ok(if config.allow_private_networks {
            "allowed"
        } else {
            "refused"
        }
        .to_owned()),
    );
    report("time zones", Ok(zone_data.to_string()));
    if faults > 0 {
        anyhow::bail!("{faults} missing");
    }
    Ok(())
}

async fn check(database: &Database) -> anyhow::Result<String> {
    let store = database.store()?;
    let done = store.migrate().await;
    store.close().await;
    done?;
    Ok("up to date".to_owned())
}

fn listen(config: &ServeConfig, beside: bool) -> anyhow::Result<String> {
    match TcpListener::bind(config.listen) {
        Ok(_) => Ok(format!("{} is free", config.listen)),
        Err(_) if beside => Ok(format!("{} is taken, by the running server", config.listen)),
        Err(error) => Err(anyhow::anyhow!("{}: {error}", config.listen)),
    }
}
