"""Strict structuring: each mistake with its exact text, and all of them at once."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import attrs
import pytest
from cattrs.errors import StructureHandlerNotFoundError

from supervisor.ground.config import (
    Between,
    Bind,
    Config,
    ConfigError,
    Duration,
    File,
    Network,
    Problem,
    Rate,
    Secret,
    load_bytes,
    unknown_name,
)


class Mode(Enum):
    SESSION = "session"
    TRANSACTION = "transaction"


class Kind(StrEnum):
    ONE = "one"
    TWO = "two"


@attrs.frozen(kw_only=True)
class Inner:
    SHORTHAND: ClassVar[str] = "address"

    address: Bind
    weight: Annotated[int, Between(1, 10)] = 1


@attrs.frozen(kw_only=True)
class Listener:
    bind: Bind
    pool: str
    tls: Inner | None = None
    from_: str = ""

    def problems(self, config: Config) -> Iterable[Problem]:
        if self.pool not in config.pools:
            yield Problem(("pool",), unknown_name("pool", self.pool, config.pools))


@attrs.frozen(kw_only=True)
class Table:
    workers: Literal["auto"] | Annotated[int, Between(1, 4)] | None = None
    listeners: Mapping[str, Listener] = attrs.field(factory=dict)
    mode: Mode = Mode.SESSION
    kind: Kind = Kind.ONE
    wait: Duration = Duration(1)
    rates: tuple[Rate, ...] = ()
    share: float = 0.5
    on: bool = False
    text: str = "x"
    secret: Secret | None = None
    file: File | None = None
    folder: Path = Path("data")
    target: Literal["off", "syslog"] | Path = "off"
    number: int = 0
    nets: tuple[Network, ...] = ()
    claims: Mapping[str, str] = attrs.field(factory=dict)
    nested: tuple[tuple[int, ...], ...] = ()


def load(text: str, **environ: str) -> Config:
    return load_bytes(text.encode(), "a.toml", Path("/base"), {"tier": Table}, environ)


def refusals(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return str(caught.value).splitlines()


def table(text: str) -> Table:
    loaded = load("[tier]\n" + text).tier("tier")
    assert isinstance(loaded, Table)
    return loaded


def test_an_absent_table_has_its_defaults() -> None:
    assert load("").tier("tier") == attrs.evolve(Table(), folder=Path("/base/data"))


def test_every_type_is_read() -> None:
    read = table(
        """
        workers = 3
        mode = "transaction"
        kind = "two"
        wait = "5s"
        rates = ["1/s", "2/m"]
        share = 1
        on = true
        text = "y"
        secret = "s"
        folder = "x/y"
        target = "/abs"
        number = -5
        nets = ["10.0.0.0/8"]
        claims = { "https://example/a" = "X-A" }
        nested = [[1], [2, 3]]
        listeners.a = { bind = "1.2.3.4:5", pool = "p", tls = "1.2.3.4:6", from = "me" }
        [pools.p]
        servers = ["1.2.3.4:5"]
        """
    )
    assert read.workers == 3
    assert read.mode is Mode.TRANSACTION
    assert read.kind is Kind.TWO
    assert type(read.wait) is Duration
    assert read.rates == (Rate(1, 1), Rate(2, 60))
    assert type(read.share) is float
    assert read.on is True
    assert read.secret == Secret("s")
    assert read.folder == Path("/base/x/y")
    assert read.target == Path("/abs")
    assert read.number == -5
    assert read.claims == {"https://example/a": "X-A"}
    assert read.nested == ((1,), (2, 3))
    assert read.listeners["a"] == Listener(
        bind=Bind("1.2.3.4", 5), pool="p", tls=Inner(address=Bind("1.2.3.4", 6)), from_="me"
    )


@pytest.mark.parametrize("raw", ["off", "syslog"])
def test_a_word_of_the_list_is_the_word_and_not_a_path(raw: str) -> None:
    assert table(f'target = "{raw}"').target == raw


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("workres = 1", 'tier.workres: unknown key; did you mean "workers"?'),
        ("zzzzzz = 1", "tier.zzzzzz: unknown key"),
        ('number = "1"', "tier.number: must be an integer, not a string"),
        ("number = true", "tier.number: must be an integer, not a boolean"),
        ("number = 1.0", "tier.number: must be an integer, not a float"),
        ("number = 99999999999999999999", "tier.number: is out of range"),
        ("on = 1", "tier.on: must be true or false, not an integer"),
        ('on = "true"', "tier.on: must be true or false, not a string"),
        ("text = 1", "tier.text: must be a string, not an integer"),
        ("text = 1979-05-27", "tier.text: must be a string, not a date"),
        ('text = "a\\nb"', 'tier.text: "a\\nb" contains a control character'),
        ("share = true", "tier.share: must be a number, not a boolean"),
        ("share = nan", "tier.share: is out of range"),
        ("share = inf", "tier.share: is out of range"),
        ("wait = 5", 'tier.wait: must be a duration such as "3s", not an integer'),
        ('wait = "5"', 'tier.wait: "5" is not a duration such as "500ms", "3s", "5m" or "1h"'),
        ('mode = "sesion"', 'tier.mode: "sesion" is not one of "session", "transaction"; did you mean "session"?'),
        ('kind = "tow"', 'tier.kind: "tow" is not one of "one", "two"; did you mean "two"?'),
        ("mode = 1", 'tier.mode: must be one of "session", "transaction", not an integer'),
        ("workers = 5", "tier.workers: must be from 1 to 4, not 5"),
        ("workers = 1.5", 'tier.workers: must be "auto" or an integer from 1 to 4, not a float'),
        (
            'workers = "aut"',
            'tier.workers: must be "auto" or an integer from 1 to 4, not "aut"; did you mean "auto"?',
        ),
        ('rates = "1/s"', "tier.rates: must be an array, not a string"),
        ('rates = ["1/s", 2]', 'tier.rates[1]: must be a rate such as "100/s", not an integer'),
        ("listeners = []", "tier.listeners: must be a table, not an array"),
        ("listeners.a = 1", "tier.listeners.a: must be a table, not an integer"),
        ('secret = { env = "NO" }', 'tier.secret: the environment variable "NO" is not set'),
        ("secret = 1", 'tier.secret: must be a string, { env = "NAME" } or { file = "path" }, not an integer'),
        ('file = "absent"', "tier.file: /base/absent cannot be read: No such file or directory"),
        ('file = ""', "tier.file: is empty where a path is needed"),
        ('folder = ""', "tier.folder: is empty where a path is needed"),
        ('folder = "a\\u0000b"', 'tier.folder: "a\\x00b" contains a control character'),
        ("target = 1", 'tier.target: must be one of "off", "syslog" or a path, not an integer'),
        ("claims = { a = 1 }", "tier.claims.a: must be a string, not an integer"),
        ("nested = [[1], [2, 'x']]", "tier.nested[1][1]: must be an integer, not a string"),
    ],
)
def test_a_mistake_reads(line: str, message: str) -> None:
    assert refusals("[tier]\n" + line) == ["a.toml:2: " + message]


@pytest.mark.parametrize("name", ["", "a/b", " a", "a\\tb", "x" * 64])
def test_a_name_that_would_break_a_metric_or_a_row_is_refused(name: str) -> None:
    (line,) = refusals(f'[pools.p]\nservers = ["1.2.3.4:5"]\n[tier.listeners."{name}"]\nbind = "1.2.3.4:5"\npool = "p"')
    assert ": a name has " in line


def test_a_missing_key_is_said_on_the_line_of_its_table() -> None:
    assert refusals('[tier]\n\n[tier.listeners.a]\nbind = "1.2.3.4:5"') == [
        "a.toml:3: tier.listeners.a.pool: required key is missing"
    ]


def test_a_tier_that_is_no_table_is_said() -> None:
    assert refusals("tier = 3") == ["a.toml:1: tier: must be a table, not an integer"]


def test_a_name_at_the_top_suggests_the_tables() -> None:
    assert refusals("x = 1\n[teir]") == [
        "a.toml:1: x: unknown key",
        'a.toml:2: teir: unknown key; did you mean "tier"?',
    ]


def test_references_are_checked() -> None:
    assert refusals('[pools.user]\nservers = ["1.2.3.4:5"]\n[tier.listeners.a]\nbind = "1.2.3.4:5"\npool = "usr"') == [
        'a.toml:5: tier.listeners.a.pool: unknown pool "usr"; did you mean "user"?'
    ]


def test_everything_that_is_wrong_comes_at_once_in_the_order_of_the_file() -> None:
    assert refusals(
        """\
[supervisor]
worker = 2
[tier]
number = "x"
[tier.listeners.a]
bind = 1
pool = "nowhere"
[tier.listeners.b]
bind = "1.2.3.4:5"
pool = "broken"
[pools.broken]
servers = [{ weight = 1 }, "1.2.3.4:0"]
balance = "x"
"""
    ) == [
        'a.toml:2: supervisor.worker: unknown key; did you mean "workers"?',
        "a.toml:4: tier.number: must be an integer, not a string",
        'a.toml:6: tier.listeners.a.bind: must be an address such as "127.0.0.1:8080", not an integer',
        'a.toml:7: tier.listeners.a.pool: unknown pool "nowhere"',
        "a.toml:12: pools.broken.servers[0].address: required key is missing",
        "a.toml:12: pools.broken.servers[1].address: port 0 can't be connected to",
        'a.toml:13: pools.broken.balance: "x" is not one of "round_robin", "least_connections", "source_hash", '
        '"maglev", "random_two"',
    ]


def test_a_pool_that_failed_keeps_its_name_for_those_that_refer_to_it() -> None:
    assert refusals('[tier.listeners.a]\nbind = "1.2.3.4:5"\npool = "p"\n[pools]\np = 3') == [
        "a.toml:5: pools.p: must be a table, not an integer"
    ]


def test_pools_that_are_no_table_are_one_mistake() -> None:
    assert refusals('pools = 3\n[tier.listeners.a]\nbind = "1.2.3.4:5"\npool = "p"') == [
        "a.toml:1: pools: must be a table, not an integer"
    ]


def test_a_hook_that_fails_on_a_sound_file_is_our_mistake_and_shows() -> None:
    @attrs.frozen(kw_only=True)
    class Faulty:
        def problems(self, config: Any) -> Iterable[Problem]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_bytes(b"", "a.toml", Path("/"), {"tier": Faulty}, {})


def test_a_type_that_no_key_can_have_is_our_mistake_and_shows() -> None:
    @attrs.frozen(kw_only=True)
    class Faulty:
        when: complex = 0j

    with pytest.raises(StructureHandlerNotFoundError):
        load_bytes(b"tier.when = 1", "a.toml", Path("/"), {"tier": Faulty}, {})


def test_it_survives_pickle() -> None:
    config = load('[tier]\nkind = "two"\nsecret = "s"\nrates = ["1/s"]\nnets = ["::/0"]')
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.line(("tier", "rates")) == 4
