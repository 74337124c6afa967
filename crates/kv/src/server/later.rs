//! What a command began that takes time.

use std::rc::Rc;
use std::time::Duration;

use super::connection::Conn;
use super::core::Core;
use crate::command::Later;
use crate::error::Error;

/// Does it, and writes the reply.
pub async fn carry_out(core: &Rc<Core>, conn: &Rc<Conn>, later: Later) {
    if matches!(later, Later::Reload { .. } | Later::ReloadLog) {
        // That all keys have changed is told to this client after the reply.
        conn.hold_back();
    }
    let result = match later {
        Later::Exec => return,
        Later::Quit => return conn.close(),
        Later::Shutdown { save, force } => return shut_down(core, conn, save, force).await,
        Later::WaitForReplicas { timeout_ms } => {
            // Nobody answers for a replica that is not there: time or the client's end is waited for.
            let is_there = match timeout_ms {
                None => conn.until_unblocked().await,
                Some(ms) => {
                    let wait = conn.until_unblocked();
                    omniring::time::timeout(Duration::from_millis(ms), wait).await.unwrap_or(true)
                }
            };
            if is_there {
                conn.reply.borrow_mut().int(0);
            }
            return;
        }
        Later::BackgroundSave(started) => {
            let mut reply = conn.reply.borrow_mut();
            if core.server.begin_snapshot() {
                reply.simple(started);
            } else {
                reply.error(&Error::new("ERR Background save already in progress"));
            }
            return;
        }
        Later::Listen(words) => core.server.set_and_listen(&words).await,
        Later::Save => core.save_dump().await,
        Later::Reload { save, flush } => core.reload(save, flush).await,
        Later::ReloadLog => {
            let reloaded = omniring::spawn_on(0, || async {
                let core = Core::current().expect("core 0 of the server runs");
                core.reload_log().await
            });
            reloaded.await.unwrap_or_else(|panicked| panicked.resume())
        }
    };
    let mut reply = conn.reply.borrow_mut();
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(&error),
    }
    drop(reply);
    conn.flush_and_release();
}

async fn shut_down(core: &Rc<Core>, conn: &Rc<Conn>, save: Option<bool>, force: bool) {
    let config = core.config();
    // With a log everything is kept anyway.
    let saves = save.unwrap_or(!config.appendonly && !config.save.is_empty());
    if saves
        && let Err(error) = core.save_dump().await
        && !force
    {
        return conn.reply.borrow_mut().error(&Error::of(format!(
            "ERR Errors trying to SHUTDOWN. Check logs. ({})",
            error.text()
        )));
    }
    core.server.stop();
    conn.close();
}
