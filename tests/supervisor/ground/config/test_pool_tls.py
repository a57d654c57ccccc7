"""[pools.NAME] tls: what it means when little is written, and what is refused, where and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.cli.demo.credentials import write_certificate
from supervisor.ground.config import ConfigError, PoolTlsTable, load_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ours.pem and ours-key.pem, ours-authority.pem, and the same of others."""
    folder = tmp_path_factory.mktemp("tls")
    for stem in ("ours", "others"):
        write_certificate(folder, ["user.internal"], stem)
    (folder / "empty.pem").touch()
    return folder


def load(folder: Path, tls: str) -> PoolTlsTable | None:
    text = f'[pools.p]\nservers = ["192.0.2.1:5"]\ntls = {{ {tls} }}'
    return load_bytes(text.encode(), "a.toml", folder, {}, {}).pools["p"].tls


def test_an_empty_table_asks_for_servers_that_the_system_believes(folder: Path) -> None:
    assert load(folder, "") == PoolTlsTable(sni=None, ca=None, verify=True, cert=None, key=None)
    assert load_bytes(b'[pools.p]\nservers = ["192.0.2.1:5"]', "a.toml", folder, {}, {}).pools["p"].tls is None


def test_files_are_read_and_a_key_is_not_shown(folder: Path) -> None:
    found = load(folder, 'ca = "ours-authority.pem", cert = "ours.pem", key = "ours-key.pem"')
    assert found is not None
    for file, name in ((found.ca, "ours-authority.pem"), (found.cert, "ours.pem"), (found.key, "ours-key.pem")):
        assert file is not None
        assert file.data == (folder / name).read_bytes()
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize(
    "name", ["a", "user.internal", "xn--bcher-kva.example", "a_b.c-d.e", "192.0.2.1", "a." * 126 + "a"]
)
def test_names_of_hosts(folder: Path, name: str) -> None:
    found = load(folder, f'sni = "{name}"')
    assert found is not None
    assert found.sni == name


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "a b", "bücher.example", "a/b", "a:443", "a" * 64, "a." * 127]
)
def test_what_is_the_name_of_no_host(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.toml:3: pools\.p\.tls\.sni: not the name of a host$"):
        load(folder, f'sni = "{name}"')


@pytest.mark.parametrize(
    ("tls", "refused"),
    [
        ('ca = "ours-authority.pem", verify = false', "ca: nobody is trusted or not while verify = false"),
        ('cert = "ours.pem"', "cert: needs a key beside it"),
        ('key = "ours-key.pem"', "key: needs a cert beside it"),
        ('ca = "empty.pem"', "ca: not PEM certificates: "),
        ('ca = "ours-key.pem"', "ca: not PEM certificates: "),
        ('cert = "empty.pem", key = "ours-key.pem"', "cert: not a PEM certificate and unencrypted key: "),
        ('cert = "ours.pem", key = "empty.pem"', "cert: not a PEM certificate and unencrypted key: "),
        ('cert = "ours.pem", key = "others-key.pem"', "cert: the key does not belong to the certificate"),
        ('ca = "missing.pem"', "ca: "),
        ('hostname = "a"', "hostname: "),
    ],
)
def test_what_is_refused_and_why(folder: Path, tls: str, refused: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, tls)
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"a.toml:3: pools.p.tls.{refused}")


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, 'sni = "a b", ca = "empty.pem", verify = false, cert = "ours.pem"')
    said = str(caught.value).splitlines()
    assert [line.split(": ")[1].rpartition(".")[2] for line in said] == ["sni", "ca", "cert", "ca"]
