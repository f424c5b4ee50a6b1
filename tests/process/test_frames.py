"""Messages between our own processes: one framing for the boot socket and for the link."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest
from msgspec import Struct

from headgate.process import boot
from headgate.process.channel import MAX_FRAME, Ack, Hello, frame, up_frames
from headgate.process.frames import LENGTH, Frames
from headgate.process.frames import frame as plain_frame


class Note(Struct):
    text: str


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_messages_come_whole_from_pieces_of_any_size(size: int) -> None:
    frames = up_frames()
    sent = [Hello("w0", "b", -1, 7), Ack(3), Ack(4)]
    data = b"".join(frame(message) for message in sent)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [message for piece in pieces for message in frames.feed(piece)] == sent
    assert frames.wanted == LENGTH.size


def test_wanted_counts_to_the_end_of_the_message() -> None:
    data = plain_frame(Note("hello"))
    frames = Frames(msgspec.msgpack.Decoder(Note))
    for at, byte in enumerate(data):
        assert frames.wanted == (LENGTH.size - at if at < LENGTH.size else len(data) - at)
        found = list(frames.feed(bytes([byte])))
    assert found == [Note("hello")]


def test_only_the_link_bounds_its_frames(ends: tuple[socket.socket, socket.socket]) -> None:
    large = Note("x" * MAX_FRAME)
    with pytest.raises(ValueError, match="over the limit"):
        plain_frame(large, MAX_FRAME)
    with pytest.raises(ValueError, match="over the limit"):
        list(up_frames().feed(plain_frame(large)))
    writer = threading.Thread(target=boot.send, args=(ends[0], large))
    writer.start()
    assert boot.receive(ends[1], Note)[0] == large  # a declared configuration may be larger
    writer.join()


def test_receive_leaves_the_next_message_in_the_socket(ends: tuple[socket.socket, socket.socket]) -> None:
    read, write = os.pipe()
    boot.send(ends[0], Note("first"), (read,))
    boot.send(ends[0], Note("second"))
    os.close(read)
    message, (descriptor,) = boot.receive(ends[1], Note)
    os.write(write, b"x")
    assert message == Note("first") and os.read(descriptor, 1) == b"x"
    os.close(descriptor)
    os.close(write)
    assert boot.receive(ends[1], Note) == (Note("second"), ())


@pytest.mark.parametrize("cut", [0, 2, 4, 6])
def test_receive_raises_when_the_other_side_closes(ends: tuple[socket.socket, socket.socket], cut: int) -> None:
    ends[0].sendall(plain_frame(Note("hello"))[:cut])
    ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        boot.receive(ends[1], Note)
