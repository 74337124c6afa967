//! Sockets by their ops alone: options, binding, listening, shutting down.

use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;

use omniring::Runtime;
use omniring_driver::addr::RawAddr;
use omniring_driver::{Driver, SharedHandle, ops};

use crate::harness::{conformance, drive, errno, new_driver};

conformance!(
    an_option_that_was_set_is_read_back,
    an_option_of_another_protocol_is_refused,
    an_option_of_what_is_no_socket_is_refused,
    a_socket_of_an_unknown_kind_is_refused,
    an_address_in_use_is_refused,
    an_address_of_another_family_is_refused,
    listening_on_a_datagram_socket_is_refused,
    shutting_down_what_is_not_connected_is_refused,
    a_vectored_message_goes_through_as_one,
);

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn tcp(driver: &Rc<Driver>) -> SharedHandle {
    drive(driver, ops::socket(driver, libc::AF_INET, libc::SOCK_STREAM, 0)).unwrap()
}

fn udp(driver: &Rc<Driver>) -> SharedHandle {
    drive(driver, ops::socket(driver, libc::AF_INET, libc::SOCK_DGRAM, 0)).unwrap()
}

fn boxed(value: i32) -> Box<[u8]> {
    Box::new(value.to_ne_bytes())
}

fn an_option_that_was_set_is_read_back(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let handle = tcp(&driver);
    let read = || {
        let value = drive(&driver, ops::option(&handle, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 4));
        i32::from_ne_bytes(value.unwrap().try_into().unwrap())
    };
    assert_eq!(read(), 0);
    let set = ops::set_option(&handle, libc::SOL_SOCKET, libc::SO_KEEPALIVE, boxed(1));
    drive(&driver, set).unwrap();
    assert_eq!(read(), 1);
    // There is room for more than the value takes.
    let value = drive(&driver, ops::option(&handle, libc::SOL_SOCKET, libc::SO_TYPE, 64)).unwrap();
    assert_eq!(value, libc::SOCK_STREAM.to_ne_bytes());
}

fn an_option_of_another_protocol_is_refused(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let handle = udp(&driver);
    let set = ops::set_option(&handle, libc::SOL_SOCKET, 0x7fff, boxed(1));
    assert_eq!(errno(drive(&driver, set)), libc::ENOPROTOOPT);
    let get = ops::option(&handle, libc::SOL_SOCKET, 0x7fff, 4);
    assert_eq!(errno(drive(&driver, get)), libc::ENOPROTOOPT);
    // Too short for an integer.
    let short = ops::set_option(&handle, libc::SOL_SOCKET, libc::SO_KEEPALIVE, Box::new([1]));
    assert_eq!(errno(drive(&driver, short)), libc::EINVAL);
}

fn an_option_of_what_is_no_socket_is_refused(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let file = std::fs::File::open("/dev/null").unwrap();
    let handle = SharedHandle::adopt(&driver, file.into());
    let set = ops::set_option(&handle, libc::SOL_SOCKET, libc::SO_KEEPALIVE, boxed(1));
    assert_eq!(errno(drive(&driver, set)), libc::ENOTSOCK);
    let get = ops::option(&handle, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 4);
    assert_eq!(errno(drive(&driver, get)), libc::ENOTSOCK);
    assert_eq!(errno(drive(&driver, ops::listen(&handle, 1))), libc::ENOTSOCK);
    assert_eq!(errno(drive(&driver, ops::bind(&handle, ANY_PORT.into()))), libc::ENOTSOCK);
    assert_eq!(errno(drive(&driver, ops::shutdown(&handle, Shutdown::Both))), libc::ENOTSOCK);
    assert_eq!(errno(drive(&driver, ops::accept(&handle))), libc::ENOTSOCK);
    let (received, _) = drive(&driver, ops::recv(&handle, vec![0; 1], 0));
    assert_eq!(errno(received), libc::ENOTSOCK);
    let (sent, _) = drive(&driver, ops::send(&handle, "x", 0));
    assert_eq!(errno(sent), libc::ENOTSOCK);
}

fn a_socket_of_an_unknown_kind_is_refused(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let family = ops::socket(&driver, 4711, libc::SOCK_STREAM, 0);
    assert_eq!(errno(drive(&driver, family)), libc::EAFNOSUPPORT);
    let protocol = ops::socket(&driver, libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_UDP);
    assert_eq!(errno(drive(&driver, protocol)), libc::EPROTONOSUPPORT);
}

fn an_address_in_use_is_refused(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let (first, second) = (tcp(&driver), tcp(&driver));
    drive(&driver, ops::bind(&first, ANY_PORT.into())).unwrap();
    drive(&driver, ops::listen(&first, 1)).unwrap();
    let taken = RawAddr::local(first.as_fd()).unwrap();
    assert_eq!(errno(drive(&driver, ops::bind(&second, taken))), libc::EADDRINUSE);
    // A socket has one address.
    assert_eq!(errno(drive(&driver, ops::bind(&first, ANY_PORT.into()))), libc::EINVAL);
}

fn an_address_of_another_family_is_refused(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let unix = drive(&driver, ops::socket(&driver, libc::AF_UNIX, libc::SOCK_STREAM, 0)).unwrap();
    assert_eq!(errno(drive(&driver, ops::bind(&unix, ANY_PORT.into()))), libc::EINVAL);
    assert_eq!(errno(drive(&driver, ops::connect(&unix, ANY_PORT.into()))), libc::EINVAL);
}

fn listening_on_a_datagram_socket_is_refused(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let handle = udp(&driver);
    drive(&driver, ops::bind(&handle, ANY_PORT.into())).unwrap();
    assert_eq!(errno(drive(&driver, ops::listen(&handle, 1))), libc::EOPNOTSUPP);
    assert_eq!(errno(drive(&driver, ops::accept(&handle))), libc::EOPNOTSUPP);
}

fn shutting_down_what_is_not_connected_is_refused(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let handle = tcp(&driver);
    assert_eq!(errno(drive(&driver, ops::shutdown(&handle, Shutdown::Write))), libc::ENOTCONN);
}

fn a_vectored_message_goes_through_as_one(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let (from, to) = (udp(&driver), udp(&driver));
    drive(&driver, ops::bind(&to, ANY_PORT.into())).unwrap();
    let addr = RawAddr::local(to.as_fd()).unwrap();
    let parts = vec!["one ", "two ", "three"];
    let (sent, _) = drive(&driver, ops::send_msg(&from, parts, Some(addr), 0));
    assert_eq!(sent.unwrap(), 13);
    let room = vec![Vec::with_capacity(5), Vec::with_capacity(5), Vec::with_capacity(5)];
    let (received, bufs) = drive(&driver, ops::recv_msg(&to, room, 0));
    let received = received.unwrap();
    assert_eq!((received.count, received.flags & libc::MSG_TRUNC), (13, 0));
    let sender = RawAddr::local(from.as_fd()).unwrap().to_inet().unwrap();
    assert_eq!(received.from.to_inet().unwrap().port(), sender.port());
    assert_eq!(bufs.concat(), b"one two three");
}
