//! A member's connection, from the handshake to the end.

use std::io;
use std::pin::pin;
use std::time::Duration;

use async_tungstenite::tungstenite::error::{CapacityError, Error};
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};
use async_tungstenite::{WebSocketReceiver, WebSocketSender, WebSocketStream};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use omniring::net::TcpStream;
use omniring::sync::{CancellationToken, Notify, mpsc};
use omniring::time::{interval, now, timeout, timeout_at};
use omniring_adapters::StreamIo;

use crate::door::Guest;
use crate::rooms::Seat;

/// How long a peer may take to answer that it is over.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// What the kernel keeps for a peer that does not read, in bytes.
const SEND_BUFFER_LEN: usize = 64 * 1024;

pub struct Settings {
    pub message_len_max: usize,
    /// The time between two pings; who says nothing for twice as long is gone.
    pub ping_time: Duration,
    /// The server ends.
    pub stop: CancellationToken,
}

/// How a connection ends.
enum End {
    /// The peer ended it, by the book.
    Closed,
    /// We do, for this reason.
    Close(CloseCode, String),
    /// It broke.
    Broken(Error),
}

/// Lets a guest talk; yields how it ended.
pub async fn talk(stream: TcpStream, guest: Guest, settings: &Settings) -> io::Result<String> {
    stream.set_nodelay(true)?;
    stream.set_send_buffer_size(SEND_BUFFER_LEN)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .max_message_size(Some(settings.message_len_max))
        .max_frame_size(Some(settings.message_len_max));
    let (io, rest) = (StreamIo::new(stream.clone()), guest.rest);
    let socket = WebSocketStream::from_partially_read(io, rest, Role::Server, Some(config)).await;
    let (mut sender, mut receiver) = socket.split();
    let end = converse(&mut sender, &mut receiver, guest.seat, settings).await;
    let said = match end {
        End::Closed => "the peer closed the connection".to_owned(),
        End::Broken(error) => error.to_string(),
        End::Close(code, why) => {
            let frame = CloseFrame { code, reason: why.as_str().into() };
            let goodbye = async {
                let _ = sender.send(Message::Close(Some(frame))).await;
                while let Some(Ok(_)) = receiver.next().await {}
                drain(&stream).await
            };
            let _ = timeout(GOODBYE_TIME_MAX, goodbye).await;
            why
        }
    };
    Ok(said)
}

type Sender = WebSocketSender<StreamIo<TcpStream>>;
type Receiver = WebSocketReceiver<StreamIo<TcpStream>>;

/// Until one of the two sides has enough; the seat is free then.
async fn converse(
    sender: &mut Sender,
    receiver: &mut Receiver,
    mut seat: Seat,
    settings: &Settings,
) -> End {
    let thrown_out = seat.too_slow.clone();
    let (_, no_queue) = mpsc::channel(1);
    let queue = std::mem::replace(&mut seat.queue, no_queue);
    let written = Notify::new();
    let listening = pin!(listen(receiver, &seat, &written, settings.ping_time));
    let talking = pin!(tell(sender, queue, &written, settings.ping_time));
    let stopping = pin!(async {
        match select(pin!(settings.stop.cancelled()), pin!(thrown_out.cancelled())).await {
            Either::Left(_) => End::Close(CloseCode::Away, "the server shuts down".to_owned()),
            Either::Right(_) => too_slow(),
        }
    });
    match select(select(listening, talking), stopping).await {
        Either::Left((Either::Left((end, _)) | Either::Right((end, _)), _)) => end,
        Either::Right((end, _)) => end,
    }
}

/// What the peer says goes to the room.
async fn listen(
    receiver: &mut Receiver,
    seat: &Seat,
    written: &Notify,
    ping_time: Duration,
) -> End {
    let silence_max = ping_time * 2;
    loop {
        let Ok(next) = timeout_at(now() + silence_max, receiver.next()).await else {
            let what = format!("nothing was heard for {silence_max:?}");
            return End::Close(CloseCode::Policy, what);
        };
        match next {
            Some(Ok(Message::Text(text))) => {
                seat.say(&text);
                // Nobody says more than it gets to hear itself: else many messages in one packet would fill
                // the queues of those who read as fast as they can.
                let caught_up = async {
                    while !seat.has_caught_up() {
                        written.notified().await;
                    }
                };
                if timeout(silence_max, caught_up).await.is_err() {
                    return too_slow();
                }
            }
            Some(Ok(Message::Binary(_))) => {
                return End::Close(CloseCode::Unsupported, "only text is spoken here".to_owned());
            }
            // Of pings and closes tungstenite answers each, as it reads on.
            Some(Ok(_)) => {}
            None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return End::Closed,
            Some(Err(error)) => return refuse(error),
        }
    }
}

fn too_slow() -> End {
    End::Close(CloseCode::Policy, "messages were not read fast enough".to_owned())
}

/// What is to be said of what cannot be read.
fn refuse(error: Error) -> End {
    match &error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            let what = format!("a message of {size} bytes; {max_size} are allowed");
            End::Close(CloseCode::Size, what)
        }
        Error::Utf8(_) => End::Close(CloseCode::Invalid, "text that is not UTF-8".to_owned()),
        // Closing without a handshake is one, too.
        Error::Protocol(_) => End::Close(CloseCode::Protocol, error.to_string()),
        _ => End::Broken(error),
    }
}

/// What is said in the room goes to the peer, and pings.
async fn tell(
    sender: &mut Sender,
    mut queue: mpsc::Receiver<Utf8Bytes>,
    written: &Notify,
    ping_time: Duration,
) -> End {
    let mut pings = interval(ping_time);
    pings.tick().await;
    loop {
        let next = {
            let (said, ping) = (pin!(queue.recv()), pin!(pings.tick()));
            match select(said, ping).await {
                Either::Left((Some(text), _)) => Message::Text(text),
                Either::Left((None, _)) => return End::Closed,
                Either::Right(_) => Message::Ping(Bytes::new()),
            }
        };
        match sender.send(next).await {
            Ok(()) => written.notify_one(),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return End::Closed,
            // The peer has closed it, and the answer is on its way: the listener ends it.
            Err(Error::Protocol(_)) => std::future::pending().await,
            Err(error) => return End::Broken(error),
        }
    }
}

/// Ends the writing direction, and takes what still comes: data left in the socket would have it reset, and
/// the peer might not get to read why.
async fn drain(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write).await?;
    while !stream.recv().await?.is_empty() {}
    Ok(())
}
