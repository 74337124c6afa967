//! A connection: one task reads requests and has them carried out, one sends what is to be sent.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use omniring::buf::IoBufExt;
use omniring::net::{Lease, TcpStream, UnixStream};

use super::blocking::{Unblock, write_null};
use super::client::{ClientInfo, state};
use super::core::Core;
use super::dispatch::Wait;
use super::output::Output;
use super::signal::Signal;
use super::{Client, later, tls};
use crate::command::Null;
use crate::error::Error;
use crate::protocol::{Args, Bounds, Length, OwnedArgs, Parser, Proto, Reply};
use crate::store::{Lsn, Waiter};

/// With more than this many bytes to be sent, a client's further requests wait.
const OUTPUT_MAX: usize = 1024 * 1024;

/// How long a connection that is to be closed may take to receive its last replies.
const FAREWELL: Duration = Duration::from_secs(10);

/// A socket of a client.
#[derive(Clone)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(tls::Stream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Bytes that were received.
pub enum Received {
    /// Where the runtime has put them.
    Lease(Lease),
    /// In memory of their own, as TLS gives them.
    Bytes(Vec<u8>),
}

impl Deref for Received {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Received::Lease(lease) => lease,
            Received::Bytes(bytes) => bytes,
        }
    }
}

impl Socket {
    async fn recv(&self) -> io::Result<Received> {
        match self {
            Socket::Tcp(stream) => stream.recv().await.map(Received::Lease),
            Socket::Tls(stream) => stream.recv().await.map(Received::Bytes),
            Socket::Unix(stream) => stream.recv().await.map(Received::Lease),
        }
    }

    async fn send_all<B: omniring::buf::IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
        match self {
            Socket::Tcp(stream) => stream.send_all(buf).await,
            Socket::Tls(stream) => stream.send_all(buf).await,
            Socket::Unix(stream) => stream.send_all(buf).await,
        }
    }

    /// Says why the client is not served.
    pub async fn refuse(&self, refusal: &'static str) {
        // It may have gone already.
        drop(self.send_all(refusal).await);
    }

    async fn shutdown(&self) {
        // It may be closed by its peer already.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both).await,
            Socket::Tls(stream) => stream.shutdown().await,
            Socket::Unix(stream) => stream.shutdown(std::net::Shutdown::Both).await,
        };
    }
}

/// What a connection's tasks, and others, have of it.
pub struct Conn {
    /// What others see of the client.
    pub info: Arc<ClientInfo>,
    /// Replies of the requests that are being carried out.
    pub reply: RefCell<Reply>,
    /// Up to which record the disk has to be before `reply` is sent.
    reply_gate: Cell<Lsn>,
    output: RefCell<Output>,
    /// Messages that are to follow a reply which does not leave yet.
    held_back: RefCell<Option<Vec<(Lsn, Reply)>>>,
    socket: Socket,
    writer: Signal,
    reader: Signal,
    /// Set when the wait for a key is over.
    is_unblocked: Cell<bool>,
    /// The wait for a key.
    pub waiting: RefCell<Option<(Arc<Waiter>, Null)>>,
    is_closing: Cell<bool>,
    is_killed: Cell<bool>,
    /// Whether it is among the core's connections that wait for the disk.
    pub is_in_gated: Cell<bool>,
    core: Rc<Core>,
}

impl Conn {
    /// The version of the protocol that the client speaks.
    pub fn proto(&self) -> Proto {
        if self.info.resp.load(Ordering::Relaxed) == 3 { Proto::Resp3 } else { Proto::Resp2 }
    }

    /// Replies from `begin` on in `reply` wait for the disk to be up to `gate`.
    pub fn gate_from(&self, begin: Length, gate: Lsn, synced: Lsn, reply: &mut Reply) {
        if gate <= synced || gate <= self.reply_gate.get() {
            return;
        }
        if self.reply_gate.get() <= synced {
            // What came before may leave.
            let rest = reply.split_off(begin);
            self.output.borrow_mut().push(self.reply_gate.get(), reply);
            *reply = rest;
        }
        self.reply_gate.set(gate);
    }

    /// Queues the replies of requests that have been carried out.
    pub fn flush(&self) {
        let gate = self.reply_gate.replace(0);
        let mut reply = self.reply.borrow_mut();
        self.output.borrow_mut().push(gate, &mut reply);
        if reply.has_memory() {
            // A client that does nothing has none.
            let proto = reply.proto();
            let (bytes, _) = std::mem::replace(&mut *reply, Reply::new(proto)).take();
            self.core.give_spare(bytes);
        }
        drop(reply);
        self.queued();
    }

    /// Queues a message that answers no request of the moment.
    pub fn push(&self, gate: Lsn, message: &mut Reply) {
        if let Some(held_back) = &mut *self.held_back.borrow_mut() {
            let proto = message.proto();
            held_back.push((gate, std::mem::replace(message, Reply::new(proto))));
            return;
        }
        if self.reply.try_borrow().is_ok_and(|reply| !reply.is_empty()) {
            // Replies that have not been queued yet were there before.
            self.flush();
        }
        self.output.borrow_mut().push(gate, message);
        self.queued();
    }

    fn queued(&self) {
        let output = self.output.borrow();
        let queued = output.queued();
        self.info.output.store(queued, Ordering::Relaxed);
        if queued == 0 {
            return;
        }
        let is_gated = output.is_gated(self.core.server.synced());
        drop(output);
        if self.core.config().is_output_too_large(&self.info, queued) {
            return self.kill();
        }
        if is_gated {
            if !self.is_in_gated.replace(true)
                && let Some(conn) = self.core.connection(self.info.id)
            {
                self.core.gate(conn);
            }
        } else {
            self.writer.set();
        }
    }

    /// Holds messages back until [`Conn::flush_and_release`]: they are to follow a reply that does not leave yet.
    pub fn hold_back(&self) {
        self.held_back.borrow_mut().get_or_insert_default();
    }

    /// Queues replies, and the messages that were held back.
    pub fn flush_and_release(&self) {
        self.flush();
        for (gate, mut message) in self.held_back.take().into_iter().flatten() {
            self.push(gate, &mut message);
        }
    }

    /// Lets the writer look again.
    pub fn wake_writer(&self) {
        self.writer.set();
    }

    /// Closes the connection when everything is sent.
    pub fn close(&self) {
        self.is_closing.set(true);
        self.info.set_state(state::CLOSING, true);
        self.writer.set();
        self.reader.set();
    }

    /// Closes the connection now.
    pub fn kill(&self) {
        if self.is_killed.replace(true) {
            return;
        }
        self.output.borrow_mut().clear();
        self.close();
        let socket = self.socket.clone();
        drop(omniring::spawn(async move { socket.shutdown().await }));
    }

    /// Whether no further request is carried out.
    pub fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// The wait for a key is over.
    pub fn unblock(&self) {
        self.is_unblocked.set(true);
        self.reader.set();
    }

    /// Ends a wait from outside; whether there was one.
    pub fn unblock_with(&self, how: Unblock) -> bool {
        let Some((waiter, null)) = self.waiting.borrow_mut().take() else {
            return false;
        };
        if !waiter.claim() {
            return false;
        }
        let mut reply = Reply::new(self.proto());
        match how {
            Unblock::Timeout => write_null(&mut reply, null),
            Unblock::Error => {
                let error = Error::new("UNBLOCKED client unblocked via CLIENT UNBLOCK");
                self.core.server.count_error(self.core.index, &error);
                reply.error(&error);
            }
        }
        self.core.gave_up(&self.info, &waiter, how == Unblock::Error);
        self.push(0, &mut reply);
        self.unblock();
        true
    }

    /// Waits until the wait for a key is over, or the client has gone; whether it is there. What it sends meanwhile
    /// is left where it is.
    pub async fn until_unblocked(&self) -> bool {
        loop {
            if self.is_unblocked.take() {
                return true;
            }
            if self.is_closing() {
                return false;
            }
            self.reader.wait().await;
        }
    }
}

/// Serves a client until it or the server ends the connection.
pub async fn serve(core: Rc<Core>, socket: Socket, info: Arc<ClientInfo>) {
    let conn = Rc::new(Conn {
        info: info.clone(),
        reply: RefCell::default(),
        reply_gate: Cell::new(0),
        output: RefCell::default(),
        held_back: RefCell::default(),
        socket: socket.clone(),
        writer: Signal::default(),
        reader: Signal::default(),
        is_unblocked: Cell::new(false),
        waiting: RefCell::default(),
        is_closing: Cell::new(false),
        is_killed: Cell::new(false),
        is_in_gated: Cell::new(false),
        core: core.clone(),
    });
    core.server.clients.add(info.clone());
    core.add(&conn);
    let writer = omniring::spawn(write(core.clone(), conn.clone()));
    let is_authenticated = !core.config().needs_password();
    let mut client = Client { info: info.clone(), is_authenticated, ..Client::default() };
    client.info.multi.store(-1, Ordering::Relaxed);
    client.info.resp.store(2, Ordering::Relaxed);
    read(&core, &conn, &mut client).await;
    conn.flush();
    conn.close();
    core.leave(&mut client).await;
    drop(writer.await);
    core.remove(info.id);
    core.server.clients.remove(info.id);
}

/// Reads requests and has them carried out, one after the other.
async fn read(core: &Rc<Core>, conn: &Rc<Conn>, client: &mut Client) {
    let mut parser = Parser::default();
    let mut lease: Option<Received> = None;
    while !conn.is_closing() {
        let mut config = core.config();
        core.look_at_clock();
        // How many of the next requests have been looked ahead at.
        let mut ahead = 0;
        let mut input: &[u8] = lease.as_ref().map_or(&[], |lease| lease.deref());
        let mut wait: Option<(Wait, OwnedArgs)> = None;
        if !input.is_empty() {
            client.info.last_ms.store(core.recent_us() / 1000, Ordering::Relaxed);
            conn.reply.borrow_mut().set_memory(core.spare());
        }
        while wait.is_none() && !conn.is_closing() {
            let bounds = Bounds {
                word_max: config.proto_max_bulk_len as i64,
                stranger: config.needs_password() && !client.is_authenticated,
            };
            if ahead == 0 {
                ahead = core.look_ahead(client.db, parser.next_bytes(input)).max(1);
            }
            ahead -= 1;
            let args: Args<'_> = match parser.next(&mut input, bounds) {
                Ok(Some(args)) => args,
                Ok(None) => break,
                Err(error) => {
                    core.server.stats.core(core.index).errors.add(1);
                    conn.reply.borrow_mut().error(&Error::of(format!("ERR {error}")));
                    return;
                }
            };
            if core.has_new_config() {
                config = core.config();
            }
            if let Some(what) = core.step(conn, client, args, &config) {
                let args = args.to_owned();
                parser.keep(input);
                input = &[];
                wait = Some((what, args));
            }
        }
        // Others who waited for what the last command has made are served before its reply leaves.
        if !matches!(wait, Some((Wait::Others(_), _))) {
            conn.flush();
        }
        lease = None;
        if let Some((what, args)) = wait {
            // In memory of its own: it is large, and most clients are not in there.
            let is_there = Box::pin(carry_out(core, conn, client, &mut parser, what, args));
            if !is_there.await {
                return;
            }
            continue;
        }
        client.info.input.store(parser.kept(), Ordering::Relaxed);
        if parser.kept() > config.client_query_buffer_limit {
            return;
        }
        if let Some(log) = core.server.persistence.log() {
            log.room().await;
        }
        while conn.output.borrow().queued() > OUTPUT_MAX && !conn.is_closing() {
            conn.reader.wait().await;
        }
        if conn.is_closing() {
            return;
        }
        match conn.socket.recv().await {
            Ok(bytes) if !bytes.is_empty() => {
                let stats = core.server.stats.core(core.index);
                stats.reads.add(1);
                stats.input.add(bytes.len() as u64);
                lease = Some(bytes);
            }
            _ => return,
        }
    }
}

/// Waits for what a request needs, and carries it out; whether the client is still there.
async fn carry_out(
    core: &Rc<Core>,
    conn: &Rc<Conn>,
    client: &mut Client,
    parser: &mut Parser,
    what: Wait,
    args: OwnedArgs,
) -> bool {
    let mut next = Some(what);
    while let Some(what) = next.take() {
        match what {
            Wait::Shards(command) => {
                let mut held = core.hold(&core.shards(command, args.args())).await;
                core.look_at_clock();
                let config = core.config();
                next = core.step_with(&mut held.keys, conn, client, command, args.args(), &config);
            }
            Wait::Exec(multi) => {
                let mut held = core.hold(&core.exec_shards(&multi, client)).await;
                let config = core.config();
                next = core.exec(&mut held.keys, conn, client, multi, &config);
            }
            Wait::Others(mut others) => {
                core.serve_others(conn, &mut others).await;
                next = others.then;
            }
            Wait::Key(waiting) => {
                conn.flush();
                let mut waits = pin!(core.wait_for_key(conn, waiting));
                let is_there = poll_fn(|cx| {
                    // What the client sends is read, so that its end is seen.
                    if parser.kept() < OUTPUT_MAX {
                        let mut recv = pin!(conn.socket.recv());
                        while let Poll::Ready(received) = recv.as_mut().poll(cx) {
                            match received {
                                Ok(bytes) if !bytes.is_empty() => parser.keep(&bytes),
                                _ => {
                                    conn.close();
                                    break;
                                }
                            }
                            recv.set(conn.socket.recv());
                            if parser.kept() >= OUTPUT_MAX {
                                break;
                            }
                        }
                    }
                    waits.as_mut().poll(cx)
                })
                .await;
                if !is_there {
                    return false;
                }
            }
            Wait::Later(later) => {
                conn.flush();
                Box::pin(later::carry_out(core, conn, later)).await;
            }
            Wait::Snapshot(command) => {
                conn.flush();
                // A slice of the snapshot's walk may come to the key.
                core.next_turn().await;
                next = Some(Wait::Shards(command));
            }
            Wait::Pause => {
                conn.flush();
                core.server.blocked.fetch_add(1, Ordering::Relaxed);
                conn.info.set_state(state::PAUSED, true);
                core.server.until_unpaused().await;
                conn.info.set_state(state::PAUSED, false);
                core.server.blocked.fetch_sub(1, Ordering::Relaxed);
                if conn.is_closing() {
                    return false;
                }
                core.look_at_clock();
                next = core.step(conn, client, args.args(), &core.config());
            }
        }
        if !matches!(next, Some(Wait::Others(_))) {
            conn.flush();
        }
    }
    true
}

/// Sends what is to be sent.
async fn write(core: Rc<Core>, conn: Rc<Conn>) {
    loop {
        let replies = conn.output.borrow_mut().take(core.server.synced());
        let Some(mut replies) = replies else {
            let is_gated = conn.output.borrow().queued() > 0;
            if conn.is_closing() && (!is_gated || conn.is_killed.get()) {
                break;
            }
            if is_gated && !conn.is_in_gated.replace(true) {
                core.gate(conn.clone());
                // The disk may have got on between the look and this.
                if !conn.output.borrow().is_gated(core.server.synced()) {
                    continue;
                }
            }
            conn.writer.wait().await;
            continue;
        };
        let stats = core.server.stats.core(core.index);
        stats.writes.add(1);
        stats.output.add(replies.len() as u64);
        let sent = send(&core, &conn.socket, &mut replies);
        let result = if conn.is_closing() {
            omniring::time::timeout(FAREWELL, sent).await.unwrap_or_else(|late| Err(late.into()))
        } else {
            sent.await
        };
        if result.is_err() {
            conn.kill();
        }
        let queued = conn.output.borrow().queued();
        conn.info.output.store(queued, Ordering::Relaxed);
        if queued <= OUTPUT_MAX {
            conn.reader.set();
        }
    }
    if let Socket::Tls(stream) = &conn.socket
        && !conn.is_killed.get()
    {
        stream.end().await;
    }
    conn.socket.shutdown().await;
}

/// Sends replies: bytes, and the values that lie between them.
async fn send(core: &Core, socket: &Socket, replies: &mut Reply) -> io::Result<()> {
    let (mut bytes, shared) = replies.take();
    if shared.is_empty() {
        let (result, bytes) = socket.send_all(bytes).await;
        core.give_spare(bytes);
        return result;
    }
    let mut from = 0;
    for (at, value) in shared {
        let (result, slice) = socket.send_all(bytes.slice(from..at)).await;
        result?;
        bytes = slice.into_inner();
        socket.send_all(value).await.0?;
        from = at;
    }
    socket.send_all(bytes.slice(from..)).await.0
}
