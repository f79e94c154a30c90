"""An open socket: what its listener is told, what a slow, silent, greedy or vanished client does to it."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from app.edge import socket
from app.edge.framing import BINARY, CLOSE, CONTINUATION, FINAL, PING, PONG, TEXT, frame_text
from app.edge.sockets import Limits
from tests.edge.conftest import WAIT_SECONDS
from tests.edge.watching import Watch, watched
from tests.edge.wire import Wire, masked
from tests.waiting import comes

pytestmark = pytest.mark.anyio

MESSAGE_BYTES = 1 << 20
PART_BYTES = 200_000
FAST_PINGS = Limits(ping_seconds=0.2)


async def until_gone(watch: Watch) -> None:
    """Until the server holds no connection, and nothing of what it has received."""
    await comes(lambda: not watch.site.server.server_state.connections and not len(watch.sockets))
    assert watch.sockets.held == 0


async def answered(wire: Wire) -> None:
    """Until the server has read all that was sent."""
    wire.send(PING, b"there?")
    assert await wire.receive() == (PONG, b"there?")


def close_frame(code: int, reason: str = "") -> bytes:
    return masked(FINAL | CLOSE, code.to_bytes(2, "big") + reason.encode())


async def test_texts_and_bytes_are_heard_as_what_they_are_in_their_order() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.send(TEXT, "grüße".encode())
        wire.send(BINARY, b"\x00\xff")
        wire.send(TEXT, b"frag", final=False)
        wire.send(PING, b"between")
        wire.send(CONTINUATION, b"mented")
        got = [await wire.receive() for _ in range(4)]
    assert got == [(TEXT, "grüße".encode()), (BINARY, b"\x00\xff"), (PONG, b"between"), (TEXT, b"fragmented")]
    assert listener.heard == ["grüße", b"\x00\xff", "fragmented"]


async def test_written_frames_arrive_in_order_whichever_way_they_were_written() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        listener.socket.write(b"one")
        listener.socket.write_joined([b"two", b"", b"3" * 70_000])
        listener.socket.write_framed(frame_text(b"four"))
        got = [(await wire.receive())[1] for _ in range(5)]
    assert got == [b"one", b"two", b"", b"3" * 70_000, b"four"]


async def test_open_sockets_leave_no_task_behind() -> None:
    async with watched() as watch:
        before = len(asyncio.all_tasks())
        async with watch.wire(), watch.wire(), watch.wire() as (wire, _):
            await answered(wire)
            assert len(asyncio.all_tasks()) == before
            assert watch.site.server.server_state.tasks == set()


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_client_that_closes_hears_its_code_and_the_end(code: int) -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.writer.write(close_frame(code, "bye"))
        assert await wire.receive_close() == (code, "")
        assert await wire.read_to_end() == b""
        assert await listener.closed_with() == code
        await until_gone(watch)


async def test_a_close_without_a_code_is_echoed_empty_and_told_as_1005() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.send(CLOSE)
        assert await wire.receive() == (CLOSE, b"")
        assert await listener.closed_with() == 1005


async def test_nothing_after_a_close_frame_is_heard() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.writer.write(close_frame(1000) + masked(FINAL | TEXT, b"too late"))
        await listener.closed_with()
        await until_gone(watch)
    assert listener.heard == []


async def test_the_server_closes_and_waits_for_the_clients_answer() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        listener.socket.write(b"before")
        listener.socket.close(4408, "Too slow")
        listener.socket.write(b"after")
        listener.socket.close(1000)
        wire.send(TEXT, b"crossing")
        assert await wire.receive() == (TEXT, b"before")
        assert await wire.receive_close() == (4408, "Too slow")
        assert len(watch.sockets) == 1
        wire.writer.write(close_frame(4408))
        assert await wire.read_to_end() == b""
        assert await listener.closed_with() == 4408
    assert listener.heard == []


async def test_a_client_that_does_not_answer_a_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "CLOSE_SECONDS", 0.05)
    async with watched() as watch, watch.wire() as (wire, listener):
        listener.socket.close(1000, "bye")
        assert await wire.receive_close() == (1000, "bye")
        assert await listener.closed_with() == 1000
        await until_gone(watch)


async def test_a_client_that_neither_reads_nor_answers_a_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits to be read would keep a polite end waiting for ever."""
    monkeypatch.setattr(socket, "CLOSE_SECONDS", 0.05)
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        fill(listener.socket)
        listener.socket.close(4408, "Too slow")
        assert await listener.closed_with() == 4408
        await until_gone(watch)


async def test_a_client_that_closes_and_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "CLOSE_SECONDS", 0.05)
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        fill(listener.socket)
        wire.writer.write(close_frame(1000))
        assert await listener.closed_with() == 1000
        await until_gone(watch)


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_vanishes_is_told_as_1006(politely: bool) -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.send(TEXT, b"part of a messa", final=False)
        await answered(wire)
        assert watch.sockets.held > 0
        wire.writer.write_eof() if politely else wire.vanish()
        assert await listener.closed_with() == 1006
        await until_gone(watch)
        listener.socket.write(b"to nobody")
        listener.socket.close()


def fill(connection: socket.Socket) -> int:
    """Write until the kernel takes no more; how many messages that were."""
    written = 0
    while connection.buffered < socket.HIGH_WATER_BYTES:
        connection.write(b"x" * MESSAGE_BYTES)
        written += 1
    return written


async def test_what_a_client_does_not_read_is_counted_and_its_leaving_told() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        connection = listener.socket
        assert (connection.buffered, connection.congested) == (0, False)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        written = fill(connection)
        assert connection.congested
        assert connection.buffered <= written * (MESSAGE_BYTES + 10)
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(written):
            assert len((await wire.receive())[1]) == MESSAGE_BYTES
        await asyncio.wait_for(listener.drained.wait(), WAIT_SECONDS)
        assert not connection.congested
        assert connection.buffered < socket.LOW_WATER_BYTES


async def test_pongs_do_not_heap_up_for_a_client_that_reads_none() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        fill(listener.socket)
        before = listener.socket.buffered
        for _ in range(2_000):
            wire.send(PING, b"x" * 125)
        wire.send(TEXT, b"close 1000")
        await listener.hears(1)
        assert listener.socket.buffered < before + 100


async def test_a_paused_socket_hears_nothing_more_not_even_what_has_arrived() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        listener.silent, listener.pause_at = True, 10
        numbers = [str(number) for number in range(1_000)]
        wire.writer.write(b"".join(masked(FINAL | TEXT, number.encode()) for number in numbers))
        await listener.hears(10)
        # Another socket is served meanwhile, so this one has had its turn too.
        async with watch.wire() as (other, _):
            await answered(other)
        assert listener.heard == numbers[:10]
        listener.socket.resume_reading()
        await listener.hears(1_000)
        wire.send(TEXT, b"end")
        await listener.hears(1_001)
    assert listener.heard == [*numbers, "end"]


async def test_a_paused_client_cannot_fill_the_servers_memory() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        listener.silent, listener.pause_at = True, 1
        wire.send(TEXT, b"first")
        await listener.hears(1)
        wire.send(BINARY, bytes(8 * MESSAGE_BYTES))
        async with watch.wire() as (other, _):
            await answered(other)
        assert watch.sockets.held == 0
        assert wire.writer.transport.get_write_buffer_size() > 0
        listener.socket.resume_reading()
        await listener.hears(2)


async def test_a_paused_socket_can_be_closed() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        listener.socket.pause_reading()
        listener.socket.close(4401, "No")
        assert await wire.receive_close() == (4401, "No")
        wire.writer.write(close_frame(4401))
        assert await wire.read_to_end() == b""
        assert await listener.closed_with() == 4401


async def test_a_client_that_answers_pings_stays_and_one_that_does_not_goes() -> None:
    async with watched(FAST_PINGS) as watch, watch.wire() as (dead, gone):
        async with watch.wire() as (alive, listener):
            for _ in range(5):
                assert await alive.receive() == (PING, b"")
                alive.send(PONG)
            assert await gone.closed_with() == 1006
            assert not listener.closed.done()
        assert (await dead.receive(), await dead.receive()) == ((PING, b""), (PING, b""))


async def test_a_client_that_talks_is_alive_without_a_pong() -> None:
    async with watched(FAST_PINGS) as watch, watch.wire() as (wire, listener):
        for number in range(5):
            assert (await wire.receive())[0] == PING
            wire.send(TEXT, b"close 1000" if number == 4 else b"")
            assert (await wire.receive())[0] == (CLOSE if number == 4 else TEXT)
    assert "close 1000" in listener.heard


async def test_a_socket_that_reads_nothing_is_pinged_and_misses_no_pong() -> None:
    async with watched(FAST_PINGS) as watch, watch.wire() as (wire, listener):
        listener.socket.pause_reading()
        for _ in range(5):
            assert (await wire.receive())[0] == PING
        assert not listener.closed.done()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x83\x80", 1002),
        (b"\x81\x05Hello", 1002),
        (masked(FINAL | CONTINUATION, b"stray"), 1002),
        (masked(FINAL | TEXT, b"\xff"), 1007),
        (masked(FINAL | CLOSE, b"\x03"), 1002),
        (masked(FINAL | CLOSE, (1005).to_bytes(2, "big")), 1002),
        (masked(FINAL | CLOSE, b"\x03\xe8\xff"), 1007),
        (masked(FINAL | TEXT, bytes(2_000)), 1009),
    ],
    ids=["opcode", "unmasked", "stray", "utf-8", "short close", "forbidden close", "reason", "too long"],
)
async def test_a_violation_is_answered_with_its_code_and_the_end(sent: bytes, code: int) -> None:
    async with watched(Limits(message_bytes=1_000)) as watch, watch.wire() as (wire, listener):
        wire.writer.write(masked(FINAL | TEXT, b"fine") + sent + masked(FINAL | TEXT, b"after"))
        assert await wire.receive() == (TEXT, b"fine")
        assert (await wire.receive_close())[0] == code
        assert await wire.read_to_end() == b""
        assert await listener.closed_with() == code
        wire.vanish()
        await until_gone(watch)
    assert listener.heard == ["fine"]


async def test_a_client_in_the_middle_of_a_message_that_is_too_long_can_read_why() -> None:
    """Hanging up with its bytes unread would reset the connection, and the Close frame would be lost."""
    async with watched(Limits(message_bytes=MESSAGE_BYTES)) as watch, watch.wire() as (wire, listener):
        wire.send(BINARY, bytes(4 * MESSAGE_BYTES))
        await wire.writer.drain()
        code, reason = await wire.receive_close()
        assert (code, reason) == (1009, f"message of at least {4 * MESSAGE_BYTES} bytes (max: {MESSAGE_BYTES})")
        await listener.closed_with()


async def test_a_violator_that_does_not_hang_up_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "CLOSE_SECONDS", 0.05)
    async with watched() as watch, watch.wire() as (wire, _):
        wire.writer.write(b"\x83\x80")
        assert (await wire.receive_close())[0] == 1002
        await until_gone(watch)


async def test_sockets_hold_together_no_more_than_their_limit_of_unfinished_messages() -> None:
    limits = Limits(held_bytes=5 * PART_BYTES // 2)
    async with watched(limits) as watch, watch.wire() as (first, heard), watch.wire() as (second, _):
        first.send(BINARY, bytes(PART_BYTES), final=False)
        second.send(BINARY, bytes(PART_BYTES), final=False)
        await answered(first)
        await answered(second)
        assert watch.sockets.held == 2 * PART_BYTES
        async with watch.wire() as (third, refused):
            third.send(BINARY, bytes(PART_BYTES), final=False)
            assert await third.receive_close() == (1013, "too many large messages at once")
            assert await refused.closed_with() == 1013
        assert watch.sockets.held == 2 * PART_BYTES
        first.send(CONTINUATION, b"done")
        await heard.hears(1)
        assert watch.sockets.held == PART_BYTES
        second.vanish()
        first.vanish()
        await until_gone(watch)


async def test_a_listener_that_fails_ends_its_own_socket_and_no_other() -> None:
    with capture_logs() as logged:
        async with watched() as watch, watch.wire() as (wire, listener), watch.wire() as (other, _):
            wire.send(TEXT, b"crash")
            assert await wire.receive_close() == (1011, "")
            assert await listener.closed_with() == 1011
            await answered(other)
    assert [line["event"] for line in logged] == ["listener_failed"]


async def test_a_server_that_stops_lets_each_listener_say_so_and_close() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        watch.site.server.should_exit = True
        assert await wire.receive() == (TEXT, b"going")
        assert await wire.receive() == (TEXT, b"away")
        assert await wire.receive_close() == (1012, "restart")
        wire.writer.write(close_frame(1012))
        assert await wire.read_to_end() == b""
        assert await listener.closed_with() == 1012


async def test_an_abort_ends_a_socket_at_once() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        fill(listener.socket)
        listener.socket.abort()
        assert await listener.closed_with() == 1006
        await until_gone(watch)


async def test_a_listener_of_a_socket_that_is_gone_is_told_so() -> None:
    async with watched() as watch, watch.wire() as (_, listener):
        listener.socket.abort()
        await listener.closed_with()
        late = type(listener)(listener.socket, set())
        listener.socket.listen(late)
        assert await late.closed_with() == 1006


async def receive_long(wire: Wire) -> tuple[bytes, list[tuple[int, bytes]]]:
    """A text in fragments, and what came between them."""
    text, between, opcode = b"", list[tuple[int, bytes]](), TEXT
    while True:
        first, payload = await wire.receive_part()
        if first & 0x0F in (PING, PONG):
            between.append((first & 0x0F, payload))
            continue
        assert first & 0x0F == opcode
        text, opcode = text + payload, CONTINUATION
        if first & FINAL:
            return text, between


LONG = [bytes([65 + number % 26]) * MESSAGE_BYTES for number in range(20)]


async def test_a_long_text_waits_slice_by_slice_for_its_reader_and_what_is_written_meanwhile_follows_it() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        taken = 0

        def slices() -> Iterator[bytes]:
            nonlocal taken
            for piece in LONG:
                taken += 1
                yield piece

        listener.socket.write_sliced(slices())
        listener.socket.write(b"after")
        assert taken < len(LONG)
        assert listener.socket.buffered <= 2 * MESSAGE_BYTES
        for _ in range(2):
            listener.socket.ping()
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        text, between = await receive_long(wire)
        assert text == b"".join(LONG)
        assert between == [(PING, b"")] * 2
        assert await wire.receive() == (TEXT, b"after")
        await asyncio.wait_for(listener.drained.wait(), WAIT_SECONDS)
        assert not listener.socket.unfinished


async def test_a_short_text_in_slices_is_one_frame() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        listener.socket.write_sliced([b"all of it"])
        listener.socket.write_sliced([])
        assert await wire.receive() == (TEXT, b"all of it")
        assert await wire.receive() == (TEXT, b"")
        assert not listener.socket.unfinished


async def test_a_close_does_not_wait_for_the_rest_of_a_long_text() -> None:
    async with watched() as watch, watch.wire() as (wire, listener):
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        listener.socket.write_sliced(LONG)
        listener.socket.close(4408, "Too slow")
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        heard = []
        while not heard or heard[-1][0] & 0x0F != CLOSE:
            heard.append(await wire.receive_part())
        assert heard[-1][1][2:] == b"Too slow"
        assert not any(first & FINAL for first, _ in heard[:-1])
        assert 0 < len(heard) - 1 < len(LONG)
