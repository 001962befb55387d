// SPDX-License-Identifier: Apache-2.0
// DuckDB under load: see load_common.mjs. PLACE is the database file. DuckDB commits to its log with
// an fsync; the log goes into the file often here, so that crashes meet that, too. Rows are not
// deleted: what DuckDB logs of that while its log goes into the file it cannot always replay itself,
// "Conflict on tuple deletion" (duckdb/duckdb#25395; on a plain directory after 2 of 90 kills).
import {createRequire} from 'node:module';
import {run} from './load_common.mjs';

// Where npm has put it: imports do not look at NODE_PATH.
const require = createRequire(`${process.env.NODE_FOLDER}/package.json`);
const {DuckDBInstance} = require('@duckdb/node-api');

let instance;
const connections = new Map();

async function connection(stream)
{
    if (!connections.has(stream))
        connections.set(stream, await instance.connect());
    return connections.get(stream);
}

async function rows(stream, sql)
{
    return (await (await connection(stream)).runAndReadAll(sql)).getRowObjects();
}

await run({
    async open(place) {
        instance = await DuckDBInstance.create(place,
            {checkpoint_threshold: '256KB', threads: '2', memory_limit: '256MB'});
        const c = await instance.connect();
        await c.run('CREATE TABLE IF NOT EXISTS ids(stream VARCHAR, n INTEGER)');
        await c.run('CREATE TABLE IF NOT EXISTS slots(stream VARCHAR, slot INTEGER, n INTEGER, body VARCHAR)');
        c.closeSync();
    },
    async newest(stream) {
        return (await rows(stream, `SELECT coalesce(max(n), 0) AS n FROM ids WHERE stream = '${stream}'`))[0].n;
    },
    async commit(stream, n, slot, body) {
        const c = await connection(stream);
        await c.run('BEGIN');
        await c.run(`INSERT INTO ids VALUES('${stream}', ${n})`);
        const updated = await c.run(
            `UPDATE slots SET n = ${n}, body = '${body}' WHERE stream = '${stream}' AND slot = ${slot}`);
        if (updated.rowsChanged === 0)
            await c.run(`INSERT INTO slots VALUES('${stream}', ${slot}, ${n}, '${body}')`);
        await c.run('COMMIT');
    },
    async all(stream) {
        return {
            ids: (await rows(stream, `SELECT n FROM ids WHERE stream = '${stream}' ORDER BY n`)).map((r) => r.n),
            slots: await rows(stream, `SELECT slot, n, body FROM slots WHERE stream = '${stream}' ORDER BY slot`),
        };
    },
    async close() {
        for (const c of connections.values())
            c.closeSync();
        instance.closeSync();
    },
});
