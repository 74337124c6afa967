//! The requests of a client that have arrived together: they are read ahead, so that the keys of many are brought near
//! at once, and carried out one after the other.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::Conn;
use super::dispatch::Wait;
use super::{Client, Core};
use crate::config::Config;
use crate::error::Error;
use crate::protocol::{Ahead, Bounds, OwnedArgs, Parser};

/// What has become of the requests that have arrived.
pub enum Batch {
    /// Those that are complete are carried out, and the rest is kept.
    Done,
    /// One has to wait; those behind it are kept.
    Waits(Wait, OwnedArgs),
    /// What follows is no request. That is replied.
    Failed,
}

impl Core {
    /// Carries out the requests that `parser` has kept and that `input` holds, until one has to wait.
    pub(super) fn carry_out(
        &self,
        conn: &Rc<Conn>,
        client: &mut Client,
        parser: &mut Parser,
        config: &mut Arc<Config>,
        input: &[u8],
    ) -> Batch {
        self.look_at_clock();
        if !input.is_empty() {
            client.info.last_ms.store(self.recent_us() / 1000, Ordering::Relaxed);
            let mut reply = conn.reply.borrow_mut();
            if !reply.has_memory() {
                reply.set_memory(self.spare());
            }
        }
        let mut ahead = self.ahead.borrow_mut();
        let batch = self.carry_out_each(conn, client, parser, config, input, &mut ahead);
        ahead.clear();
        self.keys.borrow_mut().forget_expected();
        self.settle(config, &client.info);
        batch
    }

    fn carry_out_each(
        &self,
        conn: &Rc<Conn>,
        client: &mut Client,
        parser: &mut Parser,
        config: &mut Arc<Config>,
        mut input: &[u8],
        ahead: &mut Ahead,
    ) -> Batch {
        while !conn.is_closing() {
            if ahead.is_empty() && input.is_empty() && parser.is_idle() {
                return Batch::Done;
            }
            let bounds = Bounds {
                word_max: config.proto_max_bulk_len as i64,
                stranger: config.needs_password() && !client.is_authenticated,
            };
            if ahead.is_empty() || bounds.stranger {
                self.look_ahead(client.db, parser, input, bounds, ahead);
            }
            let args = match parser.next_ahead(&mut input, ahead) {
                Some(args) => args,
                None => match parser.next(&mut input, bounds) {
                    Ok(Some(args)) => args,
                    Ok(None) => return Batch::Done,
                    Err(error) => {
                        self.server.stats.core(self.index).errors.add(1);
                        conn.reply.borrow_mut().error(&Error::of(format!("ERR {error}")));
                        return Batch::Failed;
                    }
                },
            };
            if self.has_new_config() {
                *config = self.config();
            }
            if let Some(wait) = self.step(conn, client, args, config) {
                let args = args.to_owned();
                parser.keep(input);
                return Batch::Waits(wait, args);
            }
        }
        Batch::Done
    }

    /// Reads requests ahead, and brings their keys nearer.
    fn look_ahead(
        &self,
        db: usize,
        parser: &Parser,
        input: &[u8],
        bounds: Bounds,
        ahead: &mut Ahead,
    ) {
        let mut keys = self.keys.borrow_mut();
        keys.forget_expected();
        parser.read_ahead(input, bounds, ahead, |key| keys.expect(key));
        keys.prepare(db, self.index);
    }
}
