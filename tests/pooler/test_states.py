"""The FIFO of what a server owes: single cases by name, and a model of PostgreSQL that must never be reused too
early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.errors import PeerError, ServerError
from pooler.messages import message
from pooler.states import IN_TRANSACTION, Outstanding
from tests.pooler.postgres_model import PostgresModel


def client(out: Outstanding, kinds: str, body: bytes = b"") -> None:
    data = b"".join(message(kind.encode(), body) for kind in kinds)
    assert out.sent(data) == len(data)


def server(out: Outstanding, kinds: str) -> None:
    """Z is ReadyForQuery idle, z in a transaction, x in a failed one."""
    ready = {"Z": b"I", "z": b"T", "x": b"E"}
    data = b"".join(message(b"Z", ready[k]) if k in ready else message(k.encode()) for k in kinds)
    assert out.received(data) == len(data)


FREE = "client and server in turn, then whether the server may change hands"
CASES = {
    "a query": (["Q", "TDCZ"], True),
    "a query under way": (["Q", "TDC"], False),
    "a query that fails": (["Q", "EZ"], True),
    "a query in a transaction": (["Q", "Cz"], False),
    "a failed transaction": (["Q", "Ex"], False),
    "an extended batch": (["PBDES", "12TDCZ"], True),
    "two queries in a row, one answered": (["QQ", "CZ"], False),
    "two queries in a row, both answered": (["QQ", "CZCZ"], True),
    "two batches, the first fails": (["PBESPBES", "EZ12CZ"], True),
    "execute without sync holds": (["PBE", "12C"], False),
    "flush ends nothing": (["PBEH", "12C"], False),
    "flush alone begins nothing": (["H", ""], True),
    "flush, then sync": (["PBEH", "12C", "S", "Z"], True),
    "a failed execute without sync holds": (["PBE", "12E"], False),
    "a failed execute, then sync": (["PBE", "12E", "S", "Z"], True),
    "a query skipped after an error is not answered": (["PBEQS", "12EZ"], True),
    "a query behind a good batch without sync": (["PBEQS", "12CTCZZ"], True),
    "a query that fails behind a good batch without sync": (["PBEQS", "12CEZ"], False),
    "the same, with the answer of the sync": (["PBEQS", "12CEZZ"], True),
    "a query sent after the error, before the sync": (["P", "E", "QQ", "", "S", "Z"], True),
    "a query skipped, no sync yet": (["PQ", "E"], False),
    "a query skipped, then sync": (["PQ", "E", "S", "Z"], True),
    "a function call": (["F", "VZ"], True),
    "a function call that fails": (["F", "EZ"], True),
    "sync alone": (["S", "Z"], True),
    "sync that fails to commit": (["PBES", "12CEZ"], True),
    "copy in by a query": (["Q", "G", "dd", "", "c", "CZ"], True),
    "copy in under way": (["Q", "G", "d", ""], False),
    "copy in by a query, data sent ahead": (["Qddc", "GCZ"], True),
    "copy in that fails at once, data sent ahead": (["Qddc", "EZ"], True),
    "copy in that fails at once, data and a query sent ahead": (["QdcQ", "EZTCZ"], True),
    "copy in that fails by the data": (["Q", "G", "d", "EZ"], True),
    "copy in refused by the client": (["Q", "G", "f", "EZ"], True),
    "copy in, then a query in the pipeline": (["Q", "G", "dcQ", "CZTCZ"], True),
    "two copies in one query": (["Q", "G", "dc", "CG", "dc", "CZ"], True),
    "copy in by execute, as libpq sends it": (["PBDES", "12nG", "dd", "", "cS", "CZ"], True),
    "copy in by execute, its second sync missing": (["PBDES", "12nG", "ddc", "C"], False),
    "copy in by execute, sync after the copy only": (["PBE", "12G", "dc", "", "S", "CZ"], True),
    "copy in by execute that fails, sync after the copy": (["PBE", "12G", "d", "E", "cS", "Z"], True),
    "copy in by execute, all sent ahead": (["PBESddcS", "12GCZ"], True),
    "copy in by execute, all sent ahead, the second sync missing": (["PBESddc", "12GC"], False),
    "sync and flush inside a copy are ignored": (["Q", "G", "dSHdc", "CZ"], True),
    "a failure behind a copy with a sync inside": (["Q", "G", "dSc", "C", "", "EZ"], True),
    "copy out": (["Q", "HdddcCZ"], True),
    "late copydone is ignored": (["Q", "EZ", "c", ""], True),
    "an empty query": (["Q", "IZ"], True),
    "a suspended portal": (["PBE", "12Ds", "ES", "DCZ"], True),
    "close and describe": (["DCS", "tT3Z"], True),
    "notices and notifications count nothing": (["Q", "NACNZ"], True),
}


@pytest.mark.parametrize(("turns", "free"), CASES.values(), ids=CASES)
def test_free_after(turns: list[str], free: bool) -> None:
    out = Outstanding()
    for number, kinds in enumerate(turns):
        (server if number % 2 else client)(out, kinds)
    assert out.free is free
    assert not out.unknown


UNKNOWN = {
    "sync inside a copy that fails": ["Q", "G", "dS", "E"],
    "sync before copydone, as libpq sends it, and a failure": ["PBDES", "12nG", "d", "E"],
    "anything else inside a copy": ["Q", "G", "P", ""],
    "an answer that nobody asked for": ["", "Z"],
    "copy both": ["Q", "W"],
    "a second batch behind one that begins a copy": ["PBESPBES", "12G"],
    "copy without a statement": ["", "G"],
}


@pytest.mark.parametrize("turns", UNKNOWN.values(), ids=UNKNOWN)
def test_a_count_that_cannot_be_known_is_never_free(turns: list[str]) -> None:
    out = Outstanding()
    for number, kinds in enumerate(turns):
        (server if number % 2 else client)(out, kinds)
    assert out.unknown
    client(out, "S")
    server(out, "ZZ")
    assert not out.free


def test_a_half_forwarded_message_is_outstanding() -> None:
    out = Outstanding()
    client(out, "Q")
    data = message(b"d", b"x" * 100)
    assert out.sent(data[:50]) == 50
    server(out, "EZ")
    assert not out.free
    assert out.sent(data[50:]) == 55
    assert out.free


def test_a_header_is_held_until_it_is_whole() -> None:
    out = Outstanding()
    query = message(b"Q", b"SELECT 1\0")
    assert out.sent(query + b"Q\0\0") == len(query)
    assert out.sent(b"Q\0\0\0\x05\0") == 6
    assert list(out.fifo) == [ord("Q")] * 2


def test_terminate_stops_before_itself() -> None:
    out = Outstanding()
    query = message(b"Q", b"COMMIT\0")
    assert out.sent(query + message(b"X") + b"anything") == len(query)
    assert out.terminated


def test_ready_for_query_and_parameter_status_go_on_whole() -> None:
    out = Outstanding()
    client(out, "Q")
    status = message(b"S", b"TimeZone\0UTC\0")
    ready = message(b"Z", b"I")
    assert out.received(status[:-1]) == 0
    assert out.received(status + ready[:-1]) == len(status)
    assert not out.free
    assert out.received(ready) == 6
    assert out.free
    assert out.parameters == [b"TimeZone\0UTC\0"]


def test_the_status_of_the_last_ready_for_query_is_kept() -> None:
    out = Outstanding()
    client(out, "QQ")
    server(out, "ZCz")
    assert out.status == IN_TRANSACTION
    assert (out.queries, out.transactions) == (2, 1)


@pytest.mark.parametrize(
    "data", [b"Q\0\0\0\x03", b"Q\xff\xff\xff\xff", b"y\0\0\0\x04", b"\0\0\0\0\x04", b"GET / HTTP/1.1\r\n"]
)
def test_what_is_no_message_is_the_clients_fault(data: bytes) -> None:
    with pytest.raises(PeerError):
        Outstanding().sent(data)


@pytest.mark.parametrize("data", [b"T\0\0\0\x03", b"Z\0\0\0\x06II", b"S\0\x10\0\0", b"D\0\0\0\0"])
def test_what_is_no_message_is_the_servers_fault(data: bytes) -> None:
    with pytest.raises(ServerError):
        Outstanding().received(data)


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_property_only_peer_error_escapes_the_client_side(chunks: list[bytes]) -> None:
    out = Outstanding()
    held = b""
    for chunk in chunks:
        data = held + chunk
        try:
            cut = out.sent(data)
        except PeerError:
            return
        assert len(data) - cut < 5 or out.terminated
        held = data[cut:]


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_property_only_server_error_escapes_the_server_side(chunks: list[bytes]) -> None:
    out = Outstanding()
    held = b""
    for chunk in chunks:
        data = held + chunk
        try:
            held = data[out.received(data) :]
        except ServerError:
            return


KINDS = "PBDCEESSQQFHddcfS"


@given(st.data(), st.lists(st.sampled_from(KINDS), max_size=25), st.booleans())
def test_property_a_server_is_free_exactly_when_postgres_is_idle(
    data: st.DataObject, kinds: list[str], chunked: bool
) -> None:
    """Messages go out and answers come back in any interleaving and any cuts; PostgreSQL does as it likes, errors
    included."""
    converse(data, PostgresModel(data), kinds, chunked)


@given(
    st.data(),
    st.sampled_from(["Q", "PBE", "PBES"]),
    st.lists(st.sampled_from("dSHdSc"), max_size=5),
    st.lists(st.sampled_from("cSQ"), max_size=3),
)
def test_property_a_server_that_copies_is_never_free_too_early(
    data: st.DataObject, begin: str, during: list[str], after: list[str]
) -> None:
    """Syncs inside COPY FROM STDIN, and failures at any moment: the count that can't be known must be seen as such."""
    converse(data, PostgresModel(data, copies=True), [*begin, *during, *after], False)


def converse(data: st.DataObject, model: PostgresModel, kinds: list[str], chunked: bool) -> None:
    """Plays pooler between a client that sends these messages and the model, and holds the law at each step."""
    out = Outstanding()
    messages = [message(kind.encode(), b"x" * data.draw(st.integers(0, 3))) for kind in kinds]
    pieces, held = list(messages), b""
    to_server, to_client = b"", b""
    while True:
        choices = []
        if pieces:
            choices.append("send")
        if model.can_step(to_server):
            choices.append("step")
        if to_client:
            choices.append("receive")
        if not choices:
            break
        choice = data.draw(st.sampled_from(choices))
        if choice == "step":
            to_server, answer = model.step(to_server)
            to_client += answer
            if model.dead:
                return
        elif choice == "send":
            piece = pieces.pop(0)
            if chunked and len(piece) > 1:
                cut = data.draw(st.integers(1, len(piece)))
                piece, rest = piece[:cut], piece[cut:]
                if rest:
                    pieces.insert(0, rest)
            piece = held + piece
            cut = out.sent(piece)
            to_server += piece[:cut]
            held = piece[cut:]
        else:
            take = data.draw(st.integers(1, len(to_client))) if chunked else len(to_client)
            cut = out.received(to_client[:take])
            if cut == 0:
                cut = out.received(to_client)
            to_client = to_client[cut:]
        if out.free:
            assert model.idle(to_server), "reused too early"
            assert not to_client
    if not out.unknown:
        assert out.free == model.idle(to_server)
