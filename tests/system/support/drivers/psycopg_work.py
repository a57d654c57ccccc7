"""psycopg with its defaults, in threads and in tasks: statements prepared after five uses, pipelines, COPY, cursors.
Run as a program: `psycopg_work.py PORT`."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg

WHERE = f"host=127.0.0.1 port={sys.argv[1]} user=app password=secret dbname=app"


def work(number: int) -> None:
    with psycopg.connect(WHERE) as one:
        for round_ in range(10):
            assert one.execute("SELECT %s::int * 2", [number + round_]).fetchone() == (2 * (number + round_),)
            one.commit()
        with one.cursor() as cursor:
            cursor.executemany("INSERT INTO psycopg_work VALUES (%s)", [(number,)] * 10)
            try:
                with one.transaction():
                    one.execute("SELECT 1 / %s::int", [0])
            except psycopg.errors.DivisionByZero:
                pass
            with cursor.copy("COPY psycopg_work FROM STDIN") as copy:
                for _ in range(10):
                    copy.write_row((number,))
        with one.cursor(name="some") as named:
            named.execute("SELECT * FROM generate_series(1, 500)")
            assert len(named.fetchmany(100)) == 100
        one.commit()
        with one.pipeline():
            asked = [one.execute("SELECT %s::int", [round_]) for round_ in range(20)]
            assert [some.fetchone() for some in asked] == [(round_,) for round_ in range(20)]


async def task(number: int) -> None:
    async with await psycopg.AsyncConnection.connect(WHERE, autocommit=True) as one:
        for round_ in range(10):
            found = await one.execute("SELECT %s::text", [f"{number}-{round_}"])
            assert await found.fetchone() == (f"{number}-{round_}",)
        async with one.pipeline() as pipeline:
            first = await one.execute("SELECT %s::int", [number])
            try:  # the error is raised where it happens to be read
                await one.execute("SELECT 1 / %s::int", [0])
                await pipeline.sync()
            except psycopg.errors.DivisionByZero:
                pass
            assert await first.fetchone() == (number,)
        async with one.transaction():
            await one.execute("INSERT INTO psycopg_work VALUES (%s)", [number])


async def tasks() -> None:
    await asyncio.gather(*(task(number) for number in range(6)))


with psycopg.connect(WHERE, autocommit=True) as first:
    first.execute("CREATE TABLE psycopg_work (n int)")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    asyncio.run(tasks())
    assert first.execute("SELECT count(*) FROM psycopg_work").fetchone() == (6 * 20 + 6,)
    first.execute("DROP TABLE psycopg_work")
print("done")
