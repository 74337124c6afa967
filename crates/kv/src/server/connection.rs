//! A connection: one task reads requests, has them carried out and sends their replies; another sends what has to
//! wait, or has to be awaited.
//!
//! Invariant, *one sender*: bytes of replies are handed to the socket either by the reader, while nothing is queued
//! and the writer does nothing, or by the writer, after it has taken over what the reader began.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use omniring::OpFuture;
use omniring::buf::{IoBuf, IoBufExt};
use omniring::net::{Lease, TcpStream, UnixStream};
use omniring_driver::ops;

use super::batch::Batch;
use super::blocking::{Unblock, write_null};
use super::client::{ClientInfo, state};
use super::core::Core;
use super::dispatch::Wait;
use super::output::Output;
use super::signal::Signal;
use super::{Client, later, tls};
use crate::command::Null;
use crate::config::Config;
use crate::error::Error;
use crate::protocol::{Length, OwnedArgs, Parser, Proto, Reply, Shared};
use crate::store::{Lsn, Waiter};

/// With more than this many bytes to be sent, a client's further requests wait.
const OUTPUT_MAX: usize = 1024 * 1024;

/// Replies of at most so many bytes are sent by the reader.
const SENT_BY_READER_MAX: usize = 16 * 1024;

/// Memory of at most so many bytes is kept with a connection for its next replies.
const KEPT_MAX: usize = 1024;

/// Bytes that are sent at once, and that a client may take some time for at a connection's end.
const PIECE_MAX: usize = 1024 * 1024;

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
    /// The next bytes, none at the end.
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Received>> {
        Poll::Ready(match self {
            Socket::Tcp(stream) => ready!(pin!(stream.recv()).poll(cx)).map(Received::Lease),
            Socket::Tls(stream) => ready!(stream.poll_recv(cx)).map(Received::Bytes),
            Socket::Unix(stream) => ready!(pin!(stream.recv()).poll(cx)).map(Received::Lease),
        })
    }

    /// Sends what the socket takes of these bytes, where that is one op.
    fn send(&self, bytes: Vec<u8>) -> Result<Sending, Vec<u8>> {
        match self {
            Socket::Tcp(stream) => Ok(stream.send(bytes)),
            Socket::Unix(stream) => Ok(stream.send(bytes)),
            Socket::Tls(_) => Err(bytes),
        }
    }

    async fn send_all<B: IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
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

/// A send in flight.
type Sending = OpFuture<ops::Send<Vec<u8>>>;

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
    /// What the reader has begun to send, and how many bytes that is.
    sending: RefCell<Option<(Sending, usize)>>,
    /// Whether the writer sends.
    is_writing: Cell<bool>,
    socket: Socket,
    writer: Signal,
    reader: Signal,
    /// Set when the wait for a key is over.
    is_unblocked: Cell<bool>,
    /// The wait for a key.
    pub waiting: RefCell<Option<(Arc<Waiter>, Null)>>,
    is_closing: Cell<bool>,
    /// Set when it is to be closed: for a send that goes on then.
    closing: Signal,
    is_killed: Cell<bool>,
    /// Whether it is among the core's connections that wait for the disk, or for their turn after that.
    is_in_gated: Cell<bool>,
    /// The record of the last write among its requests.
    last_write: Cell<Lsn>,
    /// Whether it was a write whose reply was let go last, and no request has taken its turn since.
    is_writer: Cell<bool>,
    /// Whether its next request may be carried out.
    has_turn: Cell<bool>,
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

    /// Notes a write whose reply waits for the disk to be up to `gate`.
    pub fn note_write(&self, gate: Lsn) {
        self.last_write.set(gate);
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

    /// Sends the replies of requests that have been carried out, where that needs no waiting, or queues them. For the
    /// reader, which is woken where more has to be done about it.
    fn answer(&self, config: &Config, cx: &mut Context<'_>) {
        let is_idle = self.poll_sending(cx);
        let mut reply = self.reply.borrow_mut();
        if reply.is_empty() && !reply.has_memory() {
            return;
        }
        if !is_idle
            || self.is_writing.get()
            || self.output.borrow().queued() > 0
            || reply.is_empty()
            || !reply.is_in_one_piece()
            || reply.len() > SENT_BY_READER_MAX
            || self.is_closing()
            || self.reply_gate.get() > self.core.server.synced()
            || config.is_output_too_large(&self.info, reply.len())
        {
            drop(reply);
            return self.flush();
        }
        let (mut bytes, _) = reply.take();
        drop(reply);
        let len = bytes.len();
        if len <= KEPT_MAX && bytes.capacity() > KEPT_MAX {
            let small = bytes[..].to_vec();
            self.core.give_spare(std::mem::replace(&mut bytes, small));
        }
        match self.socket.send(bytes) {
            Ok(send) => {
                self.reply_gate.set(0);
                self.core.count_write(len);
                *self.sending.borrow_mut() = Some((send, len));
                self.poll_sending(cx);
            }
            Err(bytes) => {
                self.reply.borrow_mut().put_back(bytes);
                self.flush();
            }
        }
    }

    /// Looks at what the reader has begun to send: whether there is no such thing any more.
    fn poll_sending(&self, cx: &mut Context<'_>) -> bool {
        let mut sending = self.sending.borrow_mut();
        let Some((send, len)) = &mut *sending else {
            return true;
        };
        // Of a small one that the socket takes as a whole nobody needs to hear before the next request.
        let polled = if *len <= KEPT_MAX {
            send.poll_quietly(cx, *len as i32)
        } else {
            Pin::new(send).poll(cx)
        };
        let Poll::Ready((result, bytes)) = polled else {
            return false;
        };
        *sending = None;
        drop(sending);
        self.sent(result, bytes);
        true
    }

    /// A send that the reader began has ended so.
    fn sent(&self, result: io::Result<usize>, mut bytes: Vec<u8>) {
        match result {
            Ok(count) if count == bytes.len() => {
                if bytes.capacity() > KEPT_MAX {
                    return self.core.give_spare(bytes);
                }
                bytes.clear();
                let mut reply = self.reply.borrow_mut();
                if !reply.has_memory() {
                    reply.set_memory(bytes);
                }
            }
            Ok(count) if count > 0 => {
                let rest = bytes.split_off(count);
                self.output.borrow_mut().push_front(rest);
                self.queued();
            }
            _ => self.kill(),
        }
    }

    /// Leaves to the writer what the reader has begun to send: the reader is about to wait for something else.
    fn hand_over(&self) {
        if self.sending.borrow().is_some() {
            self.writer.set();
        }
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

    /// Whether replies wait for a record that is not durable, with the disk up to `synced`.
    pub fn is_gated(&self, synced: Lsn) -> bool {
        self.output.borrow().is_gated(synced)
    }

    /// Which record the next reply waits for.
    pub fn first_gate(&self) -> Lsn {
        self.output.borrow().first_gate()
    }

    /// Whether the next reply waits for a write of its own, and not only for one of others' that it has read.
    pub fn waits_for_own(&self) -> bool {
        self.last_write.get() >= self.first_gate()
    }

    /// Lets the replies go that have waited.
    pub fn let_go(&self) {
        self.is_in_gated.set(false);
        self.is_writer.set(self.waits_for_own());
        self.writer.set();
    }

    /// Its next request may be carried out.
    pub fn give_turn(&self) {
        self.has_turn.set(true);
        self.reader.set();
    }

    /// Waits for [`Conn::give_turn`], or the end.
    pub async fn until_its_turn(&self) {
        while !self.has_turn.take() && !self.is_closing() {
            self.reader.wait().await;
        }
    }

    /// Closes the connection when everything is sent, or a send takes too long (`Server::farewell`).
    pub fn close(&self) {
        self.is_closing.set(true);
        self.closing.set();
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

    /// The next bytes from the client, none at the end. What the reader has begun to send is seen to meanwhile.
    async fn recv(&self) -> io::Result<Received> {
        let mut is_first = true;
        poll_fn(|cx| {
            // It has just been looked at when this is polled first.
            if !std::mem::take(&mut is_first) {
                self.poll_sending(cx);
            }
            self.socket.poll_recv(cx)
        })
        .await
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
        sending: RefCell::default(),
        is_writing: Cell::new(false),
        socket: socket.clone(),
        writer: Signal::default(),
        reader: Signal::default(),
        is_unblocked: Cell::new(false),
        waiting: RefCell::default(),
        is_closing: Cell::new(false),
        closing: Signal::default(),
        is_killed: Cell::new(false),
        is_in_gated: Cell::new(false),
        last_write: Cell::new(0),
        is_writer: Cell::new(false),
        has_turn: Cell::new(false),
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
    let mut config = core.config();
    while !conn.is_closing() {
        core.refresh(&mut config);
        let input: &[u8] = lease.as_ref().map_or(&[], |lease| lease.deref());
        let batch = core.carry_out(conn, client, &mut parser, &mut config, input);
        lease = None;
        if let Batch::Failed = batch {
            return;
        }
        if let Batch::Waits(what, args) = batch {
            conn.hand_over();
            // Others who waited for what the last command has made are served before its reply leaves.
            if !matches!(what, Wait::Others(_)) {
                conn.flush();
            }
            // In memory of its own: it is large, and most clients are not in there.
            let is_there = Box::pin(wait(core, conn, client, &mut parser, what, args));
            if !is_there.await {
                return;
            }
            continue;
        }
        let kept = parser.kept();
        client.info.input.store(kept, Ordering::Relaxed);
        if kept > config.client_query_buffer_limit {
            return;
        }
        if let Some(log) = core.server.persistence.log()
            && log.is_congested()
        {
            conn.hand_over();
            conn.flush();
            log.room().await;
        }
        poll_fn(|cx| {
            conn.answer(&config, cx);
            Poll::Ready(())
        })
        .await;
        while conn.output.borrow().queued() > OUTPUT_MAX && !conn.is_closing() {
            conn.reader.wait().await;
        }
        if conn.is_closing() {
            return;
        }
        match conn.recv().await {
            Ok(bytes) if !bytes.is_empty() => {
                let stats = core.server.stats.core(core.index);
                stats.reads.add(1);
                stats.input.add(bytes.len() as u64);
                // What goes on with a request is read as it comes.
                if core.release.is_crowded() && parser.is_idle() && conn.is_writer.take() {
                    parser.keep(&bytes);
                    drop(bytes);
                    conn.hand_over();
                    core.turn(conn).await;
                } else {
                    lease = Some(bytes);
                }
            }
            _ => return,
        }
    }
}

/// Waits for what a request needs, and carries it out; whether the client is still there.
async fn wait(
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
                        while let Poll::Ready(received) = conn.socket.poll_recv(cx) {
                            match received {
                                Ok(bytes) if !bytes.is_empty() => parser.keep(&bytes),
                                _ => {
                                    conn.close();
                                    break;
                                }
                            }
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
                omniring::yield_now().await;
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
        core.settle(&core.config(), &conn.info);
        if !matches!(next, Some(Wait::Others(_))) {
            conn.flush();
        }
    }
    true
}

/// Sends what is to be sent.
async fn write(core: Rc<Core>, conn: Rc<Conn>) {
    loop {
        let begun = conn.sending.borrow_mut().take();
        if let Some((mut send, _)) = begun {
            conn.is_writing.set(true);
            match in_time(&conn, &mut send).await {
                Ok((result, bytes)) => conn.sent(result, bytes),
                Err(_) => conn.kill(),
            }
            continue;
        }
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
            conn.is_writing.set(false);
            conn.writer.wait().await;
            continue;
        };
        conn.is_writing.set(true);
        core.count_write(replies.len());
        if send(&core, &conn, &mut replies).await.is_err() {
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

/// Waits for a send: from when the connection is to be closed, for a bounded time.
async fn in_time<F: Future + Unpin>(conn: &Conn, mut send: F) -> io::Result<F::Output> {
    let sent = poll_fn(|cx| match Pin::new(&mut send).poll(cx) {
        Poll::Ready(sent) => Poll::Ready(Some(sent)),
        Poll::Pending if conn.is_closing() => Poll::Ready(None),
        Poll::Pending => conn.closing.poll_wait(cx).map(|()| None),
    })
    .await;
    match sent {
        Some(sent) => Ok(sent),
        None => Ok(omniring::time::timeout(conn.core.server.farewell, send).await?),
    }
}

/// Sends replies.
async fn send(core: &Core, conn: &Conn, replies: &mut Reply) -> io::Result<()> {
    let (bytes, shared) = replies.take();
    if !shared.is_empty() || bytes.len() > PIECE_MAX {
        // In memory of its own, as it is large.
        return Box::pin(send_parts(conn, bytes, shared)).await;
    }
    let (result, bytes) = in_time(conn, pin!(conn.socket.send_all(bytes))).await?;
    core.give_spare(bytes);
    result
}

/// Sends bytes, and the values that lie between them.
async fn send_parts(conn: &Conn, mut bytes: Vec<u8>, shared: Shared) -> io::Result<()> {
    let mut from = 0;
    for (at, value) in shared {
        bytes = send_all(conn, bytes.slice(from..at)).await?.into_inner();
        send_all(conn, value).await?;
        from = at;
    }
    send_all(conn, bytes.slice(from..)).await?;
    Ok(())
}

/// Sends all bytes, in pieces that have their time each: one who receives slowly gets everything.
async fn send_all<B: IoBuf>(conn: &Conn, mut buf: B) -> io::Result<B> {
    let len = buf.as_bytes().len();
    let mut from = 0;
    while from < len {
        let to = len.min(from + PIECE_MAX);
        let (result, piece) =
            in_time(conn, pin!(conn.socket.send_all(buf.slice(from..to)))).await?;
        result?;
        buf = piece.into_inner();
        from = to;
    }
    Ok(buf)
}

#[cfg(test)]
mod tests;
