//! What a command began that takes time.

use std::rc::Rc;

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
        Later::WaitForReplicas { .. } => conn.reply.borrow_mut().int(0),
        Later::Save | Later::BackgroundSave | Later::Reload { .. } | Later::ReloadLog => {
            conn.reply.borrow_mut().error(&Error::new("ERR there is no log"));
        }
    }
}
