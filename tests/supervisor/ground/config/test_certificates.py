"""Certificates in a configuration: found in any tier, warned of in time, given other contents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from supervisor.ground.config import CertificateTable, Config, File, load_bytes, unusable
from supervisor.ground.config.certificates import certificates, with_files
from tests.responder import WEEK, Responder

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class Tls:
    certificates: tuple[CertificateTable, ...]


@attrs.frozen(kw_only=True)
class Listener:
    tls: Tls | None = None


@attrs.frozen(kw_only=True)
class Table:
    listeners: Mapping[str, Listener] = attrs.Factory(dict)
    users: File | None = None


def certificate(begins: datetime, ends: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.example")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name in ("a.pem", "a.key", "b.pem", "b.key", "users"):
        (tmp_path / name).write_bytes(name.encode())
    text = """
    [web]
    users = "users"
    [web.listeners.one.tls]
    certificates = [{ cert = "a.pem", key = "a.key" }, { cert = "b.pem", key = "b.key" }]
    [web.listeners.two.tls]
    certificates = [{ cert = "a.pem", key = "a.key" }]
    [web.listeners.plain]
    """
    return load_bytes(text.encode(), "x.toml", tmp_path, {"web": Table})


def test_every_pair_is_found_with_its_key_path(config: Config) -> None:
    assert [(path[2], path[-1], table.cert.path.name) for path, table in certificates(config)] == [
        ("one", 0, "a.pem"),
        ("one", 1, "b.pem"),
        ("two", 0, "a.pem"),
    ]


def test_other_contents_stand_wherever_the_file_is_named_and_all_else_stays(config: Config) -> None:
    new = with_files(config, {config.directory / "a.pem": b"other"})
    assert [table.cert.data for _, table in certificates(new)] == [b"other", b"b.pem", b"other"]
    assert new.tier("web").listeners["plain"] is config.tier("web").listeners["plain"]
    assert new.tier("web").users is config.tier("web").users
    assert new.lines is config.lines
    assert config.tier("web").listeners["two"].tls.certificates[0].cert.data == b"a.pem"
    assert with_files(config, {config.directory / "a.pem": b"a.pem"}) == config


@pytest.mark.parametrize(
    ("begins", "ends", "expected"),
    [
        (-10, 31, None),
        (-10, 30.5, None),
        (-10, 29.5, "the certificate expires in 29 days, on 2030-01-30"),
        (-10, 1.5, "the certificate expires in a day, on 2030-01-02"),
        (-10, 0.5, "the certificate expires within a day, on 2030-01-01"),
        (-10, -1, "the certificate has expired, on 2029-12-31"),
        (1, 90, "the certificate is not valid before 2030-01-02"),
    ],
)
def test_a_certificate_is_warned_of_before_it_expires(
    config: Config, begins: float, ends: float, expected: str | None
) -> None:
    made = certificate(NOW + timedelta(days=begins), NOW + timedelta(days=ends))
    found = with_files(config, {config.directory / "b.pem": made}).warnings(NOW)
    assert [problem.message for problem in found] == ([] if expected is None else [expected])
    for problem in found:
        assert problem.path == ("web", "listeners", "one", "tls", "certificates", 1, "cert")


def warned(tmp_path: Path, ocsp: bytes | None, cert: bytes, now: datetime) -> list[tuple[object, str]]:
    held = {"cert": cert, "key": b"", **({} if ocsp is None else {"ocsp": ocsp})}
    table = CertificateTable(**{name: File(tmp_path / name, data) for name, data in held.items()})
    assert [file.data for file in table.files] == list(held.values())
    return [(problem.path, problem.message) for problem in table.warnings(None, now)]


def test_responses_that_are_not_shown_or_soon_will_not_be_are_warned_of(tmp_path: Path) -> None:
    authority = Responder()
    now, cert = authority.began + timedelta(days=6), authority.certificate("a.example")[0]
    soon = f"{authority.began + WEEK:%Y-%m-%d %H:%M} UTC"
    old = authority.began - WEEK
    gone = f"{authority.began:%Y-%m-%d %H:%M} UTC"
    of_another = authority.response(authority.certificate("b.example", serial=9)[0])
    for ocsp, message in (
        (authority.response(cert, lasts=4 * WEEK), None),
        (authority.response(cert), f"the OCSP response expires on {soon}; fetch a newer one"),
        (authority.response(cert, began=old), f"the OCSP response has expired, on {gone}, and is not shown"),
        (of_another, "the OCSP response is of another certificate, and is not shown"),
        (b"garbage", None),  # a problem, and told as such
    ):
        assert warned(tmp_path, ocsp, cert, now) == ([] if message is None else [(("ocsp",), message)])


def test_a_certificate_that_asks_for_a_response_wants_one(tmp_path: Path) -> None:
    authority = Responder()
    cert = authority.certificate("a.example", stapled=True)[0]
    assert warned(tmp_path, None, cert, authority.began) == [
        (("cert",), "clients refuse this certificate without an OCSP response: set ocsp")
    ]
    assert warned(tmp_path, authority.response(cert), cert, authority.began) == []


def test_a_response_that_is_none_is_a_problem(tmp_path: Path) -> None:
    authority = Responder()
    cert, key = authority.certificate("a.example")
    files = {"cert": cert, "key": key, "ocsp": b"garbage"}
    table = CertificateTable(**{name: File(tmp_path / name, data) for name, data in files.items()})
    (problem,) = unusable([table])
    assert (problem.path, problem.message) == (("certificates", 0), "not an OCSP response in DER")
