// node's `postgres` with its defaults: every query prepared, pipelines, transactions, savepoints, COPY, a cursor.
// node postgres_work.js PORT
const postgres = require("postgres");
const assert = require("assert");
const { pipeline } = require("stream/promises");
const { Readable } = require("stream");

const sql = postgres({ host: "127.0.0.1", port: +process.argv[2], user: "app", password: "secret", database: "app" });

async function client(number) {
  for (let round = 0; round < 10; round++) {
    const [{ twice }] = await sql`SELECT ${number * 100 + round}::int * 2 AS twice`;
    assert.equal(twice, 2 * (number * 100 + round));
    await assert.rejects(sql`SELECT 1 / ${0}::int`, { code: "22012" });
  }
  await sql.begin(async (one) => {
    await one`INSERT INTO node_postgres ${one([{ n: number }, { n: -number }])}`;
    await assert.rejects(one.savepoint((two) => two`INSERT INTO node_postgres VALUES ('none'::text::int)`));
    const found = await Promise.all([one`SELECT ${number}::int AS n`, one`SELECT ${"x"}::text AS x`]);
    assert.deepEqual([found[0][0].n, found[1][0].x], [number, "x"]);
  });
  await assert.rejects(sql.begin(async (one) => {
    await one`INSERT INTO node_postgres VALUES (${number})`;
    throw new Error("taken back");
  }), /taken back/);
}

(async () => {
  await sql`CREATE TABLE node_postgres (n int)`;
  await Promise.all([...Array(8).keys()].map(client));
  await pipeline(Readable.from("1000\n2000\n"), await sql`COPY node_postgres FROM STDIN`.writable());
  assert.equal((await sql`SELECT count(*)::int AS n FROM node_postgres`)[0].n, 18);
  let rows = 0;
  await sql`SELECT * FROM generate_series(1, 5000)`.cursor(1000, (some) => { rows += some.length; });
  assert.equal(rows, 5000);
  await sql`DROP TABLE node_postgres`;
  await sql.end();
  console.log("done");
})().catch((error) => { console.error(error); process.exit(1); });
