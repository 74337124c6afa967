//! Loading snapshots and logs into the keys.

use super::piece::Piece;
use super::recovery::Target;
use crate::command::{Call, Outcome, resolve};
use crate::config::Config;
use crate::error::Error;
use crate::protocol::{Args, Reply};
use crate::rdb::{Entry, Import};
use crate::server::{Client, Server, call};
use crate::store::{Expiry, Keys, Kind, Lfu, Limits, Side, Value, seconds};

/// Carries commands out as the server does, without logging them, on keys whose shards are all at hand. While it
/// is there the keys' time stands still.
#[allow(missing_debug_implementations)] // What it refers to has none.
pub struct IntoKeys<'a> {
    keys: &'a mut Keys,
    server: &'a Server,
    config: std::sync::Arc<Config>,
    client: Client,
    reply: Reply,
}

impl<'a> IntoKeys<'a> {
    /// Loads into these keys.
    pub fn new(keys: &'a mut Keys, server: &'a Server) -> IntoKeys<'a> {
        let config = server.config();
        keys.replaying = true;
        keys.limits = config.limits;
        let client = Client::default();
        let reply = Reply::new(client.proto);
        IntoKeys { keys, server, config, client, reply }
    }
}

impl Drop for IntoKeys<'_> {
    fn drop(&mut self) {
        self.keys.replaying = false;
        self.keys.effects = Default::default();
    }
}

impl Import for IntoKeys<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), Error> {
        let keys = &mut *self.keys;
        keys.begin(entry.db, keys.now_ms());
        keys.insert(&entry.key, entry.value, entry.expires_ms);
        let access = match (keys.lfu.is_some(), entry.frequency, entry.idle_seconds) {
            (true, Some(count), _) => Some(Lfu::access(count.into(), keys.now_ms())),
            (false, _, Some(idle)) => {
                Some(seconds(keys.now_ms().saturating_sub(idle.saturating_mul(1000))))
            }
            _ => None,
        };
        if let Some(access) = access {
            let table = keys.table(&entry.key);
            if let Some(slot) = table.find(&entry.key) {
                table.set_access(slot, access);
            }
        }
        keys.effects = Default::default();
        Ok(())
    }

    fn command(&mut self, db: usize, args: Args<'_>) -> Result<(), Error> {
        Target::command(self, db, args)
    }

    fn limits(&self) -> Limits {
        self.keys.limits
    }
}

impl Target for IntoKeys<'_> {
    fn command(&mut self, db: usize, args: Args<'_>) -> Result<(), Error> {
        let command = resolve(args)?;
        self.client.db = db;
        self.keys.begin(db, self.keys.now_ms());
        let mut with = Call {
            keys: self.keys,
            reply: &mut self.reply,
            config: &self.config,
            server: self.server,
            deliveries: &mut Vec::new(),
        };
        let answer = call(command, &mut with, &mut self.client, args);
        self.reply = Reply::new(self.client.proto);
        self.keys.effects = Default::default();
        match answer? {
            Outcome::Done => Ok(()),
            _ => Err(Error::new("ERR a command that waits is not in a log")),
        }
    }

    fn piece(&mut self, piece: &Piece<'_>) -> Result<(), Error> {
        let keys = &mut *self.keys;
        keys.begin(piece.owner.db, keys.now_ms());
        let limits = keys.limits;
        add(keys, piece, &limits)?;
        if piece.is_first {
            let owner = piece.owner;
            let table = keys.table(owner.key);
            if let Some(slot) = table.find(owner.key) {
                table.set_access(slot, owner.access);
            }
        }
        if !keys.effects.ready.is_empty() {
            keys.effects = Default::default();
        }
        Ok(())
    }
}

fn add(keys: &mut Keys, piece: &Piece<'_>, limits: &Limits) -> Result<(), Error> {
    let key = piece.owner.key;
    if piece.is_first {
        // A key's first piece takes the place of what a walk that met it twice has left.
        let expires_ms = piece.owner.expires_ms;
        match piece.kind {
            Kind::String => keys.put_string(key, piece.string, Expiry::Set(expires_ms)),
            Kind::List => keys.insert(key, Value::List(Box::default()), expires_ms),
            Kind::Set => keys.insert(key, Value::Set(Box::default()), expires_ms),
            Kind::Hash => keys.insert(key, Value::Hash(Box::default()), expires_ms),
            Kind::Zset => keys.insert(key, Value::Zset(Box::default()), expires_ms),
        }
    }
    let lost = Error::new("ERR a part of a value comes before its beginning");
    match piece.kind {
        Kind::String if piece.is_first => {}
        Kind::String => {
            keys.string_mut(key)?.ok_or(lost)?.extend_from_slice(piece.string);
        }
        Kind::List => {
            let list = keys.list_mut(key)?.ok_or(lost)?;
            piece.elements().for_each(|(element, ..)| list.push(Side::Right, element, limits));
        }
        Kind::Set => {
            let set = keys.set_mut(key)?.ok_or(lost)?;
            for (member, ..) in piece.elements() {
                set.insert(member, limits);
            }
        }
        Kind::Hash => {
            let hash = keys.hash_mut(key)?.ok_or(lost)?;
            for (field, value, _) in piece.elements() {
                hash.insert(field, value, limits);
            }
        }
        Kind::Zset => {
            let zset = keys.zset_mut(key)?.ok_or(lost)?;
            for (member, _, score) in piece.elements() {
                zset.insert(member, score, limits);
            }
        }
    }
    Ok(())
}
