//! What a command began that takes time.

use std::rc::Rc;
use std::time::Duration;

use super::Client;
use super::connection::Conn;
use super::core::Core;
use crate::command::Later;
use crate::error::Error;

/// Does it, and writes the reply.
pub async fn carry_out(core: &Rc<Core>, conn: &Rc<Conn>, client: &mut Client, later: Later) {
    let _ = client;
    match later {
        Later::Exec => {}
        Later::Quit => conn.close(),
        Later::Shutdown { .. } => {
            core.server.stop();
            conn.close();
        }
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
        }
        Later::Save | Later::BackgroundSave | Later::Reload { .. } | Later::ReloadLog => {
            conn.reply.borrow_mut().error(&Error::new("ERR there is no log"));
        }
    }
}
