//! Many datagrams at a time: one buffer that the kernel or the network device cuts (GSO) or joins
//! (GRO), and batches of buffers.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;

use omniring_driver::op::Opcode;
use omniring_driver::ops::{self, ControlToSend};
use omniring_driver::{Explained, OpFuture, OpSet, Operation, Support};

use super::UdpSocket;
use crate::buf::{IoBuf, IoBufMut};

/// The most datagrams that one send is cut into on every kernel (`UDP_MAX_SEGMENTS` before 6.9).
const SEGMENTS_MAX: usize = 64;
/// The most bytes in one send: what a datagram of IPv4 carries.
const SEND_LEN_MAX: usize = 65_507;

/// What a receive of datagrams that may be joined has brought: see
/// [`UdpSocket::recv_segments`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segments {
    /// Bytes received.
    pub count: usize,
    /// The length of each datagram but the last, which may be shorter. That of the only one if
    /// there is one.
    pub segment_len: usize,
    /// Who sent them.
    pub from: SocketAddr,
    /// The traffic class that they came with, if `set_recv_traffic_class` was called: DSCP in the
    /// upper 6 bits, ECN in the lower 2.
    pub traffic_class: Option<u8>,
}

impl Segments {
    /// The datagrams in a buffer that was received into.
    ///
    /// # Panics
    /// If the buffer has fewer bytes than were received.
    pub fn split<'a>(&self, buf: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        // An empty datagram is one, too.
        let empty = (self.count == 0).then_some(&buf[..0]);
        buf[..self.count].chunks(self.segment_len.max(1)).chain(empty)
    }
}

/// A datagram of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// Its bytes in the buffer.
    pub count: usize,
    /// Who sent it.
    pub from: SocketAddr,
}

/// The error for what GSO does not take.
#[cold]
fn refused(what: String) -> io::Error {
    Explained::new(libc::EINVAL, what).into()
}

/// Refuses by name what the kernel refuses by EINVAL or EMSGSIZE, or takes for something else.
fn check_segments(len: usize, segment_len: usize) -> io::Result<u16> {
    let as_u16 = u16::try_from(segment_len).ok().filter(|&len| len != 0);
    let Some(segment) = as_u16.filter(|&len| usize::from(len) <= SEND_LEN_MAX) else {
        let what =
            format!("a datagram of {segment_len} bytes, and it can have 1 to {SEND_LEN_MAX}");
        return Err(refused(what));
    };
    if len > SEND_LEN_MAX {
        return Err(refused(format!("{len} bytes, where one send takes {SEND_LEN_MAX}")));
    }
    let count = len.div_ceil(segment_len);
    if count > SEGMENTS_MAX {
        let what = format!("{count} datagrams, where one send takes {SEGMENTS_MAX}");
        return Err(refused(what));
    }
    Ok(segment)
}

impl UdpSocket {
    /// Sends the initialised bytes of `buf` to the connected address as datagrams of `segment_len`
    /// bytes, the last of which may be shorter: one trip through the network stack for all
    /// (`UDP_SEGMENT`, 4.18). At most 64 datagrams and 65,507 bytes, and with its headers each has to
    /// fit the path's MTU, else the kernel says `EINVAL`. The result is the bytes sent: all.
    ///
    /// Dropping the future cancels the send; it may have happened.
    ///
    /// ```
    /// use omniring::net::UdpSocket;
    /// # omniring::Runtime::new()?.block_on(async {
    /// let (a, b) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    /// a.connect(b.local_addr()?).await?;
    /// a.send_segments("onetwosix!", 3).await.0?;
    /// for text in ["one", "two", "six", "!"] {
    ///     assert_eq!(&b.recv().await?[..], text.as_bytes());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn send_segments<B: IoBuf>(
        &self,
        buf: B,
        segment_len: usize,
    ) -> (io::Result<usize>, B) {
        self.send_segments_raw(buf, segment_len, None).await
    }

    /// As [`send_segments`](Self::send_segments), to this address.
    pub async fn send_segments_to<B: IoBuf>(
        &self,
        buf: B,
        segment_len: usize,
        to: SocketAddr,
    ) -> (io::Result<usize>, B) {
        self.send_segments_raw(buf, segment_len, Some(to)).await
    }

    async fn send_segments_raw<B: IoBuf>(
        &self,
        buf: B,
        segment_len: usize,
        to: Option<SocketAddr>,
    ) -> (io::Result<usize>, B) {
        let mut control = ControlToSend::default();
        match check_segments(buf.len(), segment_len) {
            // One datagram needs no cutting.
            Ok(segment) if buf.len() > segment_len => control.push_segment_len(segment),
            Ok(_) => {}
            Err(error) => return (Err(error), buf),
        }
        let to = to.map(Into::into);
        let send = ops::send_msg_with_control(&self.handle, vec![buf], to, 0, control);
        let (result, mut bufs, _) = send.await;
        (result, bufs.pop().expect("the buffer comes back"))
    }

    /// Receives a datagram, or after [`set_gro`](Self::set_gro) several of one sender that the kernel
    /// has joined; up to 65,535 bytes. What `buf` has no room for is lost.
    ///
    /// If the future is dropped, datagrams that had arrived by then are lost. Datagrams that a leased
    /// receive had in advance come first, and look like one each: do not mix the two with GRO.
    ///
    /// ```
    /// use omniring::net::UdpSocket;
    /// # omniring::Runtime::new()?.block_on(async {
    /// let (a, b) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    /// b.set_gro(true)?;
    /// a.send_segments_to("onetwosix!", 3, b.local_addr()?).await.0?;
    /// let mut texts = Vec::new();
    /// while texts.len() < 4 {
    ///     let (result, buf) = b.recv_segments(Vec::with_capacity(65_535)).await;
    ///     texts.extend(result?.split(&buf).map(<[u8]>::to_vec));
    /// }
    /// assert_eq!(texts, [&b"one"[..], b"two", b"six", b"!"]);
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn recv_segments<B: IoBufMut>(&self, buf: B) -> (io::Result<Segments>, B) {
        let (result, mut bufs) = ops::recv_msg_with_control(&self.handle, vec![buf], 0, 0).await;
        let result = result.and_then(|(message, control)| {
            let count = message.count;
            Ok(Segments {
                count,
                segment_len: control.segment_len.map_or(count, usize::from).min(count),
                from: message.from.to_inet()?,
                traffic_class: control.traffic_class,
            })
        });
        (result, bufs.pop().expect("the buffer comes back"))
    }

    /// Sends each of `bufs` as a datagram, to its address or, with `None`, to the connected one:
    /// the result of each, and the buffers, in the order given. They are submitted together: on a
    /// ring by one system call.
    ///
    /// Dropping the future cancels those that have not been sent.
    pub async fn send_batch<B: IoBuf>(
        &self,
        bufs: Vec<(B, Option<SocketAddr>)>,
    ) -> Vec<(io::Result<usize>, B)> {
        let sends = bufs
            .into_iter()
            .map(|(buf, to)| ops::send_msg(&self.handle, vec![buf], to.map(Into::into), 0));
        let sent = self.in_order(Opcode::SendMsg, sends).await.into_iter();
        sent.map(|(result, mut bufs)| (result, bufs.pop().expect("the buffer comes back")))
            .collect()
    }

    /// Carries these out in the order given: what each yields. They are submitted together, unless
    /// several threads would then be at them at once.
    async fn in_order<O: Operation>(
        &self,
        opcode: Opcode,
        ops: impl ExactSizeIterator<Item = OpFuture<O>>,
    ) -> Vec<O::Output> {
        if self.handle.driver().support(opcode) == Some(Support::Offloaded) {
            let mut outputs = Vec::with_capacity(ops.len());
            for op in ops {
                outputs.push(op.await);
            }
            return outputs;
        }
        let mut outputs: Vec<_> = std::iter::repeat_with(|| None).take(ops.len()).collect();
        let mut set = OpSet::new(ops);
        while let Some((place, output)) = poll_fn(|cx| set.poll_next(cx)).await {
            outputs[place] = Some(output);
        }
        outputs.into_iter().map(|output| output.expect("each has yielded its result")).collect()
    }

    /// Waits for a datagram and takes what others there are, up to one for each of `bufs`: what came
    /// into the first of them, in the order given, and all of the buffers. The others are asked for
    /// together: on a ring by one system call. An error is reported if it comes first; one that comes
    /// after a datagram is dropped, as nothing says which datagram it would be about.
    ///
    /// If the future is dropped, datagrams that had arrived by then are lost.
    ///
    /// ```
    /// use omniring::net::UdpSocket;
    /// # omniring::Runtime::new()?.block_on(async {
    /// let (a, b) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    /// a.connect(b.local_addr()?).await?;
    /// let texts = ["one", "two", "three"];
    /// for (result, _) in a.send_batch(texts.map(|text| (text, None)).into()).await {
    ///     result?;
    /// }
    /// let bufs: Vec<Vec<u8>> = (0..8).map(|_| Vec::with_capacity(100)).collect();
    /// let (result, bufs) = b.recv_batch(bufs).await;
    /// for (datagram, buf) in result?.iter().zip(&bufs) {
    ///     assert_eq!(datagram.from, a.local_addr()?);
    ///     assert!(texts.iter().any(|text| text.as_bytes() == buf));
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn recv_batch<B: IoBufMut>(
        &self,
        mut bufs: Vec<B>,
    ) -> (io::Result<Vec<Datagram>>, Vec<B>) {
        if bufs.is_empty() {
            return (Ok(Vec::new()), bufs);
        }
        let datagram = |message: ops::MessageReceived| {
            Ok(Datagram { count: message.count, from: message.from.to_inet()? })
        };
        let rest = bufs.split_off(1);
        let (result, mut filled) = ops::recv_msg(&self.handle, bufs, 0).await;
        let mut datagrams = match result.and_then(datagram) {
            Ok(first) => vec![first],
            Err(error) => {
                filled.extend(rest);
                return (Err(error), filled);
            }
        };
        let receives =
            rest.into_iter().map(|buf| ops::recv_msg(&self.handle, vec![buf], libc::MSG_DONTWAIT));
        // A datagram may come after a receive has found none, and be taken by the next one.
        let mut unfilled = Vec::new();
        for (result, mut bufs) in self.in_order(Opcode::RecvMsg, receives).await {
            let buf = bufs.pop().expect("the buffer comes back");
            match result.and_then(datagram) {
                Ok(datagram) => {
                    datagrams.push(datagram);
                    filled.push(buf);
                }
                Err(_) => unfilled.push(buf),
            }
        }
        filled.extend(unfilled);
        (Ok(datagrams), filled)
    }
}
