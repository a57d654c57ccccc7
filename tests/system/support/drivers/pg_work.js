// node's `pg` with its defaults: simple and named statements, a pool, transactions, errors, a cursor's worth of rows.
// node pg_work.js PORT
const { Pool } = require("pg");
const assert = require("assert");

const pool = new Pool({ host: "127.0.0.1", port: +process.argv[2], user: "app", password: "secret", database: "app" });

async function client(number) {
  for (let round = 0; round < 10; round++) {
    const named = { name: "twice", text: "SELECT $1::int * 2 AS twice", values: [number * 100 + round] };
    assert.equal((await pool.query(named)).rows[0].twice, 2 * (number * 100 + round));
    assert.equal((await pool.query("SELECT $1::text AS said", ["x" + round])).rows[0].said, "x" + round);
    assert.equal((await pool.query("SELECT 1 AS one; SELECT 2 AS two")).length, 2);
    await assert.rejects(pool.query("SELECT 1 / $1::int", [0]), { code: "22012" });
  }
  const one = await pool.connect();
  try {
    await one.query("BEGIN");
    await one.query("INSERT INTO node_pg VALUES ($1)", [number]);
    await one.query("SAVEPOINT s");
    await assert.rejects(one.query("INSERT INTO node_pg VALUES ('none')"), { code: "22P02" });
    await one.query("ROLLBACK TO s");
    await one.query({ name: "insert", text: "INSERT INTO node_pg VALUES ($1)", values: [number] });
    await one.query(number % 2 ? "COMMIT" : "ROLLBACK");
  } finally {
    one.release();
  }
}

(async () => {
  await pool.query("DROP TABLE IF EXISTS node_pg; CREATE TABLE node_pg (n int)");
  await Promise.all([...Array(8).keys()].map(client));
  assert.equal((await pool.query("SELECT count(*)::int AS n FROM node_pg")).rows[0].n, 8);
  assert.equal((await pool.query("SELECT * FROM generate_series(1, 20000)")).rows.length, 20000);
  await pool.query("DROP TABLE node_pg");
  await pool.end();
  console.log("done");
})().catch((error) => { console.error(error); process.exit(1); });
