//! The limit of open files, and how many clients it lets be: `maxclients`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Server;
use crate::config;
use crate::report;

/// Open files beside those of clients, of the process and of each core.
const OTHERS: u64 = 32;
const OF_A_CORE: u64 = 16;

/// How many clients the limit of open files lets be, where that is fewer than wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// So many.
    pub clients: u64,
    open_files: u64,
}

fn others(server: &Server) -> u64 {
    OTHERS + OF_A_CORE * server.shard_count() as u64
}

/// Raises the limit so that it lets so many clients be.
pub fn make_room(server: &Server, clients: usize) -> Result<(), TooFew> {
    let others = others(server);
    let needed = clients as u64 + others;
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current.filter(|&soft| soft < needed) else {
        return Ok(());
    };
    let raised = needed.min(limit.maximum.unwrap_or(needed));
    let wanted = Rlimit { current: Some(raised), maximum: limit.maximum };
    let reached =
        if raised > soft && setrlimit(Resource::Nofile, wanted).is_ok() { raised } else { soft };
    if reached >= needed {
        return Ok(());
    }
    Err(TooFew { clients: reached.saturating_sub(others), open_files: reached })
}

/// Raises the limit so that it lets `maxclients` be, or lowers `maxclients` to what it lets be.
///
/// # Errors
/// Where there would be none.
pub fn fit(server: &Server) -> Result<(), String> {
    let config = server.config();
    let Err(TooFew { clients, open_files }) = make_room(server, config.maxclients) else {
        return Ok(());
    };
    if clients == 0 {
        return Err(format!(
            "the limit of open files is {open_files}, and {} are needed besides those of clients; raise it \
             (ulimit -n, LimitNOFILE= in systemd)",
            others(server)
        ));
    }
    report::warning(
        "maxclients lowered: the limit of open files lets no more be (ulimit -n, LimitNOFILE= in systemd)",
        &[("maxclients", &clients), ("wanted", &config.maxclients), ("open_files", &open_files)],
    );
    let mut lowered = (*config).clone();
    let setting = config::find("maxclients").expect("there is such a setting");
    lowered.set(setting, &clients.to_string())?;
    server.set_config(lowered);
    Ok(())
}
