"""Framing: what the parser takes out of a stream, against RFC 6455 and against another reading of it."""

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from app.edge.framing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FINAL,
    PING,
    PONG,
    TEXT,
    Control,
    Parser,
    Violation,
    frame,
    frame_close,
    frame_text,
    frame_texts,
    read_close,
)
from tests.edge.wire import masked

LIMIT = 2_000

Taken = str | bytes | Control
# What a stream comes to: what was taken, and the close code that ended it, if one did.
Outcome = tuple[list[Taken], int | None]


def parse(pieces: list[bytes], limit: int = LIMIT) -> Outcome:
    """What a socket would be told of these bytes, up to the first Close frame."""
    parser = Parser(limit)
    taken: list[Taken] = []
    try:
        for piece in pieces:
            parser.feed(piece)
            while (one := parser.take()) is not None:
                if isinstance(one, Control) and one.opcode == CLOSE:
                    read_close(one.payload)
                    return [*taken, one], None
                taken.append(one)
    except Violation as violation:
        return taken, violation.code
    return taken, None


def ask_oracle(stream: bytes, limit: int = LIMIT) -> Outcome:
    """The same by the `websockets` library, which leaves text undecoded and wants no Close between fragments."""
    protocol = ServerProtocol(state=State.OPEN, max_size=limit)
    protocol.receive_data(stream)
    taken: list[Taken] = []
    for opcode, payload in whole_messages(protocol):
        if opcode is Opcode.TEXT:
            try:
                taken.append(payload.decode())
            except UnicodeDecodeError:
                return taken, 1007
        else:
            taken.append(payload if opcode is Opcode.BINARY else Control(int(opcode), payload))
    if str(protocol.parser_exc) == "incomplete fragmented message" and protocol.close_rcvd is not None:
        closed = protocol.close_rcvd
        return [*taken, Control(CLOSE, b"" if closed.code == 1005 else closed.serialize())], None
    failed = protocol.parser_exc is not None and protocol.close_sent is not None
    return taken, int(protocol.close_sent.code) if failed and protocol.close_sent else None


def whole_messages(protocol: ServerProtocol) -> Iterator[tuple[Opcode, bytes]]:
    gathered, kind = b"", Opcode.TEXT
    for event in protocol.events_received():
        opcode, payload = event.opcode, bytes(event.data)  # type: ignore[union-attr]
        if opcode in (Opcode.TEXT, Opcode.BINARY):
            gathered, kind = b"", opcode
        if opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            yield opcode, payload
            continue
        gathered += payload
        if event.fin:  # type: ignore[union-attr]
            yield kind, gathered


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[begin:end] for begin, end in pairwise(edges)]


MASKS = st.binary(min_size=4, max_size=4)
PLACES = st.lists(st.integers(0, 10_000), max_size=12)
PAYLOADS = st.one_of(st.binary(max_size=140), st.text(max_size=60).map(str.encode))
CLOSINGS = st.tuples(st.integers(990, 1020), st.text(max_size=4)).map(lambda one: one[0].to_bytes(2) + one[1].encode())


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """What a proper client sends: messages in fragments, with control frames between them."""
    frames = []
    for _ in range(draw(st.integers(1, 6))):
        opcode, payload = draw(st.sampled_from((TEXT, BINARY))), draw(PAYLOADS)
        pieces = cut(payload, draw(st.lists(st.integers(0, 200), max_size=3))) or [b""]
        for number, piece in enumerate(pieces):
            for kind in draw(st.lists(st.sampled_from((PING, PONG)), max_size=2)):
                frames.append(masked(FINAL | kind, draw(st.binary(max_size=125)), draw(MASKS)))
            last = FINAL if number == len(pieces) - 1 else 0
            frames.append(masked(last | (CONTINUATION if number else opcode), piece, draw(MASKS)))
    return b"".join(frames)


@st.composite
def nonsense(draw: st.DrawFn) -> bytes:
    """Frames that are whole, of any first byte, some without a mask.

    All but those above the limit fit into it together: the other reading counts a ping to the message around it.
    """
    frames = []
    for _ in range(draw(st.integers(1, 5))):
        first = draw(st.one_of(st.integers(0, 255), st.sampled_from((0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8A))))
        whole = masked(
            first, draw(st.one_of(PAYLOADS, CLOSINGS, st.binary(min_size=LIMIT + 1, max_size=LIMIT + 20))), draw(MASKS)
        )
        frames.append(whole if draw(st.integers(0, 9)) else whole[:1] + bytes([whole[1] & 0x7F]) + whole[2:])
    return b"".join(frames)


@settings(max_examples=300, deadline=None)
@given(conversations(), PLACES)
def test_a_proper_client_is_understood_however_its_bytes_arrive(stream: bytes, places: list[int]) -> None:
    taken, code = parse(cut(stream, places), limit=10_000)
    assert (taken, code) == ask_oracle(stream, limit=10_000)
    assert taken or code == 1007


@settings(max_examples=600, deadline=None)
@given(nonsense(), PLACES)
@example(masked(0xC1, b"reserved"), [])
@example(masked(FINAL | TEXT, b"x" * (LIMIT + 1)), [])
def test_nonsense_ends_where_another_reading_ends_it(stream: bytes, places: list[int]) -> None:
    taken, code = parse(cut(stream, places))
    expected, expected_code = ask_oracle(stream)
    assert taken == expected
    if code != expected_code:
        # A frame that is wrong in two ways may be refused for either.
        assert {code, expected_code} == {1002, 1009}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), PLACES)
def test_noise_is_a_violation_or_an_unfinished_frame_and_never_more(noise: bytes, places: list[int]) -> None:
    pieces = cut(noise, places)
    taken, code = parse(pieces)
    assert code in (None, 1002, 1007, 1009)
    assert (taken, code) == parse([noise])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=70_000), min_size=1, max_size=3), st.booleans())
def test_what_is_sent_is_understood_by_another_reading(payloads: list[bytes], joined: bool) -> None:
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
    client.receive_data(frame_texts(payloads) if joined else b"".join(map(frame_text, payloads)))
    events = client.events_received()
    assert [(event.opcode, event.fin, bytes(event.data)) for event in events] == [  # type: ignore[union-attr]
        (Opcode.TEXT, True, payload) for payload in payloads
    ]
    assert client.parser_exc is None


HELLO = bytes.fromhex("818537fa213d7f9f4d5158")


def test_the_examples_of_rfc_6455_5_7_are_read_and_written() -> None:
    assert parse([HELLO]) == (["Hello"], None)
    assert frame_text(b"Hello") == bytes.fromhex("810548656c6c6f")
    assert frame(PING, b"Hello") == bytes.fromhex("890548656c6c6f")
    assert parse([bytes.fromhex("8a8537fa213d7f9f4d5158")]) == ([Control(PONG, b"Hello")], None)
    assert frame(BINARY, bytes(256))[:4] == bytes.fromhex("827e0100")
    assert frame(BINARY, bytes(65_536))[:10] == bytes.fromhex("827f0000000000010000")


def test_the_unmasked_example_is_refused_to_a_client() -> None:
    assert parse([bytes.fromhex("810548656c6c6f")]) == ([], 1002)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537])
def test_each_form_of_a_length_is_read_and_written(size: int) -> None:
    payload = b"a" * size
    assert parse([masked(FINAL | TEXT, payload)], limit=1 << 20) == ([payload.decode()], None)
    assert frame_text(payload).endswith(payload)


@pytest.mark.parametrize("first", [0xF1, 0xC1, 0xA1, 0x91, *range(0x83, 0x88), *range(0x8B, 0x90)])
def test_reserved_bits_and_opcodes_are_refused_at_the_first_two_bytes(first: int) -> None:
    assert parse([bytes([first, 0x80])]) == ([], 1002)


@pytest.mark.parametrize(
    "stream",
    [
        masked(PING, b""),
        masked(FINAL | PING, b"x" * 126),
        masked(CLOSE, b""),
        masked(FINAL | CONTINUATION, b"nothing before"),
        masked(TEXT, b"begun") + masked(FINAL | TEXT, b"begun again"),
        masked(BINARY, b"begun") + masked(BINARY, b"begun again"),
        masked(TEXT, b"one ") + masked(FINAL | CONTINUATION, b"two") + masked(FINAL | CONTINUATION, b"three"),
    ],
    ids=["fragmented ping", "long ping", "fragmented close", "stray", "text in text", "binary in binary", "after end"],
)
def test_fragments_and_control_frames_follow_5_4_and_5_5(stream: bytes) -> None:
    assert parse([stream])[1] == 1002


def test_control_frames_come_at_once_between_the_fragments_of_a_message() -> None:
    stream = masked(TEXT, b"Hel") + masked(FINAL | PING, b"?") + masked(FINAL | CONTINUATION, b"lo")
    assert parse([stream]) == ([Control(PING, b"?"), "Hello"], None)


def test_a_letter_may_be_cut_by_fragments_but_not_by_the_end_of_a_message() -> None:
    letter = "ß".encode()
    whole = masked(TEXT, letter[:1]) + masked(FINAL | CONTINUATION, letter[1:])
    assert parse([whole]) == (["ß"], None)
    assert parse([masked(FINAL | TEXT, letter[:1])]) == ([], 1007)


@pytest.mark.parametrize("text", ["eda080", "c0af", "f4908080", "ff", "cebae1bdb9cf83cebcceb5eda080656469746564"])
def test_text_that_is_not_utf_8_is_1007(text: str) -> None:
    assert parse([masked(FINAL | TEXT, bytes.fromhex(text))]) == ([], 1007)
    assert parse([masked(FINAL | BINARY, bytes.fromhex(text))]) == ([bytes.fromhex(text)], None)


def test_a_message_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert parse([masked(FINAL | BINARY, bytes(LIMIT))]) == ([bytes(LIMIT)], None)
    assert parse([masked(FINAL | BINARY, bytes(LIMIT + 1))]) == ([], 1009)
    fragments = masked(BINARY, bytes(LIMIT)) + masked(FINAL | CONTINUATION, b"x")
    assert parse([fragments]) == ([], 1009)
    between = masked(BINARY, bytes(LIMIT)) + masked(FINAL | PING, b"free") + masked(FINAL | CONTINUATION, b"")
    assert parse([between]) == ([Control(PING, b"free"), bytes(LIMIT)], None)


def test_a_message_that_is_too_long_is_refused_before_it_is_sent() -> None:
    head = masked(FINAL | TEXT, bytes(70_000))[:10]
    assert parse([head]) == ([], 1009)
    assert parse([bytes([FINAL | TEXT, 0xFF]) + b"\xff" * 8]) == ([], 1009)


def test_a_million_small_fragments_cost_no_more_than_their_bytes() -> None:
    parser = Parser(1 << 20)
    parser.feed(masked(TEXT, b"x") + masked(CONTINUATION, b"x") * 999)
    assert parser.take() is None
    assert parser.held == 1_000


def test_a_parser_that_has_nothing_to_do_holds_nothing() -> None:
    parser = Parser(LIMIT)
    parser.feed(HELLO[:5])
    assert parser.take() is None
    assert parser.held == 5
    parser.feed(HELLO[5:] + HELLO)
    assert (parser.take(), parser.held) == ("Hello", len(HELLO))
    assert (parser.take(), parser.take(), parser.held) == ("Hello", None, 0)


def test_a_parser_lets_go_of_what_it_has_read() -> None:
    tracemalloc.start()
    try:
        parser = Parser(1 << 20)
        before = tracemalloc.get_traced_memory()[0]
        parser.feed(masked(FINAL | BINARY, bytes(1 << 20)))
        assert len(parser.take() or b"") == 1 << 20
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()


VALID_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


@pytest.mark.parametrize("code", VALID_CODES)
def test_a_close_code_of_7_4_is_read_and_written(code: int) -> None:
    assert read_close(code.to_bytes(2, "big") + b"why") == code
    assert frame_close(code, "why") == bytes([0x88, 5]) + code.to_bytes(2, "big") + b"why"


@pytest.mark.parametrize("code", INVALID_CODES)
def test_a_close_code_that_must_not_be_sent_is_1002(code: int) -> None:
    with pytest.raises(Violation) as refused:
        read_close(code.to_bytes(2, "big"))
    assert refused.value.code == 1002


def test_a_close_frame_may_be_empty_but_not_of_one_byte_nor_with_a_broken_reason() -> None:
    assert read_close(b"") == 1005
    for payload, code in ((b"\x03", 1002), (b"\x03\xe8\xff", 1007)):
        with pytest.raises(Violation) as refused:
            read_close(payload)
        assert refused.value.code == code


def test_a_reason_is_cut_between_letters_to_what_fits() -> None:
    closing = frame_close(1000, "ß" * 100)
    assert closing[1] == len(closing) - 2 <= 125
    assert closing[4:].decode() == "ß" * 61
