"""A drive with a write cache that is lost with the power, as a server of NBD on a Unix socket.

What is written lies in the cache until it is flushed. When the client goes, which is when the power goes, a random
part of the cache's blocks reaches the medium, and the rest is gone: a write can be torn at any block, and a later one
can be there where an earlier one is not. Only what one client needs is here: the fixed newstyle handshake, reads,
writes, flushes.
"""
import os
import random
import socket
import struct
import threading

BLOCK = 512

OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
REPLY_MAGIC = 0x3E889045565A9
OPT_EXPORT_NAME, OPT_ABORT, OPT_INFO, OPT_GO = 1, 2, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, 0x80000001
HAS_FLAGS, SEND_FLUSH = 1, 4
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
EINVAL = 22


class Gone(Exception):
    """The client has ended."""


class Drive:
    """Serves a file. What the last cut of the power did stands in `kept` and `lost`, in blocks."""

    def __init__(self, path, image, seed):
        self.image = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.image).st_size
        self.random = random.Random(seed)
        self.cache = {}
        self.kept = self.lost = self.flushes = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.is_off = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            self.is_off.clear()
            try:
                if self.greet(stream):
                    self.serve(stream)
            except (Gone, ConnectionError):
                pass
            stream.close()
            self.cut()
            self.is_off.set()

    def close(self):
        self.listener.close()

    def cut(self):
        """The power goes."""
        survivors = self.random.random()
        kept = {at: block for at, block in self.cache.items() if self.random.random() < survivors}
        self.kept, self.lost = len(kept), len(self.cache) - len(kept)
        self.cache = kept
        self.flush()

    def flush(self):
        for at, block in self.cache.items():
            os.pwrite(self.image, block, at * BLOCK)
        self.cache.clear()

    def greet(self, stream):
        stream.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTION_MAGIC, 3))
        receive(stream, 4)
        export = struct.pack(">QH", self.size, HAS_FLAGS | SEND_FLUSH)
        while True:
            _, option, length = struct.unpack(">QII", receive(stream, 16))
            receive(stream, length)

            def reply(kind, data=b""):
                stream.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

            if option == OPT_EXPORT_NAME:
                stream.sendall(export)
                return True
            if option in (OPT_INFO, OPT_GO):
                reply(REP_INFO, struct.pack(">H", 0) + export)
                reply(REP_ACK)
                if option == OPT_GO:
                    return True
            elif option == OPT_ABORT:
                reply(REP_ACK)
                return False
            else:
                reply(REP_ERR_UNSUP)

    def serve(self, stream):
        while True:
            _, _, kind, handle, offset, length = struct.unpack(">IHHQQI", receive(stream, 28))
            data, error = b"", 0
            if kind == READ:
                data = self.read(offset, length)
            elif kind == WRITE:
                written = receive(stream, length)
                assert offset % BLOCK == 0 and length % BLOCK == 0
                for at in range(0, length, BLOCK):
                    self.cache[(offset + at) // BLOCK] = written[at : at + BLOCK]
            elif kind == FLUSH:
                self.flushes += 1
                self.flush()
            elif kind == DISCONNECT:
                return
            else:
                error = EINVAL
            stream.sendall(struct.pack(">IIQ", 0x67446698, error, handle) + data)

    def read(self, offset, length):
        data = bytearray(os.pread(self.image, length, offset))
        first = offset // BLOCK
        for at in range(first, (offset + length + BLOCK - 1) // BLOCK):
            block = self.cache.get(at)
            if block is not None:
                start = at * BLOCK - offset
                data[max(start, 0) : start + BLOCK] = block[max(-start, 0) :][: length - max(start, 0)]
        return bytes(data)


def receive(stream, length):
    data = bytearray()
    while len(data) < length:
        more = stream.recv(length - len(data))
        if not more:
            raise Gone
        data += more
    return bytes(data)
