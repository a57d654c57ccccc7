"""asyncpg with its defaults: every statement prepared and kept, cursors, COPY, types of its own, a pool.
Run as a program: `asyncpg_work.py PORT`."""

import asyncio
import sys

import asyncpg

WHERE = f"postgresql://app:secret@127.0.0.1:{sys.argv[1]}/app"


async def work(pool: asyncpg.Pool, number: int) -> None:
    for round_ in range(10):
        async with pool.acquire() as one:
            assert await one.fetchval("SELECT $1::int * 2", number * 100 + round_) == 2 * (number * 100 + round_)
            kept = await one.prepare("SELECT $1::text || $2::text")
            assert await kept.fetchval("a", str(number)) == f"a{number}"
            try:
                await one.execute("SELECT 1 / $1::int", 0)
            except asyncpg.DivisionByZeroError:
                pass
            else:
                raise AssertionError("an error")
            async with one.transaction():
                await one.executemany("INSERT INTO asyncpg_work VALUES ($1, $2)", [(number, ["x", "y"])] * 5)
                try:
                    async with one.transaction():
                        await one.execute("INSERT INTO asyncpg_work VALUES ($1)", number)
                        raise LookupError
                except LookupError:
                    pass
                found = [row["n"] async for row in one.cursor("SELECT n FROM asyncpg_work WHERE n = $1", number)]
                assert len(found) == 5 * (round_ + 1)


async def main() -> None:
    async with asyncpg.create_pool(WHERE, min_size=6, max_size=6) as pool:
        await pool.execute("CREATE TYPE asyncpg_pair AS (a int, b text)")
        await pool.execute("CREATE TABLE asyncpg_work (n int, words text[])")
        await asyncio.gather(*(work(pool, number) for number in range(6)))
        assert await pool.fetchval("SELECT count(*) FROM asyncpg_work") == 300
        await pool.copy_records_to_table("asyncpg_work", records=[(1000 + n, [str(n)]) for n in range(1000)])
        assert await pool.fetchval("SELECT max(n) FROM asyncpg_work") == 1999
        assert tuple(await pool.fetchval("SELECT ROW(1, 'x')::asyncpg_pair")) == (1, "x")
        # A table that changes under a prepared statement: the driver asks once more by itself.
        async with pool.acquire() as one, pool.acquire() as other:
            before = await one.fetchrow("SELECT * FROM asyncpg_work LIMIT 1")
            await other.execute("ALTER TABLE asyncpg_work ADD more int")
            after = await one.fetchrow("SELECT * FROM asyncpg_work LIMIT 1")
            assert (len(before), len(after)) == (2, 3)
        await pool.execute("DROP TABLE asyncpg_work")
        await pool.execute("DROP TYPE asyncpg_pair")


asyncio.run(main())
print("done")
