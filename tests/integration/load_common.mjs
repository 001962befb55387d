// SPDX-License-Identifier: Apache-2.0
// What the load programs in JavaScript share: load_common.h for several streams in one process.
//
//     PROGRAM load PLACE STREAM ACK-FILE BODY-BYTES SLOTS LIMIT
//     PROGRAM ids  PLACE STREAM SLOTS
//
// STREAM-1, STREAM-2, ... run at the same time. Transaction n of a stream inserts n and replaces the
// body of slot n % slots with body(stream, n); it is acknowledged in a file outside of the mount only
// after the database said that it is durable.
import fs from 'node:fs';
import crypto from 'node:crypto';

export function body(stream, n, bytes)
{
    const unit = crypto.createHash('md5').update(`${stream}:${n}`).digest('hex');
    return unit.repeat(Math.ceil(bytes / unit.length)).slice(0, bytes);
}

// Exit status 3 is what the database or the file system said, 2 a mistake of the test.
function die(status, text)
{
    process.stderr.write(`${text}\n`);
    process.exit(status);
}

// `database` has: open(place), newest(stream), commit(stream, n, slot, body) - resolved when the
// transaction is durable -, all(stream) -> {ids: [n], slots: [{slot, n, body}]}, sorted, close().
export async function run(database)
{
    const [command, place, stream, ...rest] = process.argv.slice(2);
    try {
        await database.open(place);
        if (command === 'load' && rest.length === 4)
            await load(database, stream, rest);
        else if (command === 'ids' && rest.length === 1)
            await ids(database, stream, Number(rest[0]));
        else
            die(2, 'usage: see the head of load_common.mjs');
        await database.close();
    } catch (error) {
        die(3, `${error.stack ?? error}`);
    }
    process.exit(0);
}

const STREAMS = Number(process.env.LOAD_STREAMS ?? 2);

function streams(prefix)
{
    return Array.from({length: STREAMS}, (_, i) => `${prefix}-${i + 1}`);
}

async function load(database, prefix, [acks, bytes, slots, limit])
{
    const fd = fs.openSync(acks, 'a');
    let stop = false;
    let done = 0;
    process.on('SIGTERM', () => { stop = true; });
    await Promise.all(streams(prefix).map(async (stream) => {
        let n = Number(await database.newest(stream));
        for (let i = 0; !stop && (Number(limit) === 0 || i < Number(limit)); i++) {
            n++;
            await database.commit(stream, n, n % Number(slots), body(stream, n, Number(bytes)));
            fs.writeSync(fd, `${stream}:${n}\n`);
            done++;
        }
    }));
    console.log(`${prefix} transactions=${done}`);
}

async function ids(database, prefix, slots)
{
    for (const stream of streams(prefix)) {
        const all = await database.all(stream);
        const newest = all.ids.length;
        all.ids.forEach((n, i) => {
            if (n !== i + 1)
                die(1, `${stream}: after transaction ${i} comes ${n}`);
            console.log(`${stream}:${n}`);
        });
        for (const s of all.slots) {
            const right = newest - (newest + slots - s.slot) % slots;
            if (s.n !== right)
                die(1, `${stream}: slot ${s.slot} is of transaction ${s.n}, not ${right}`);
            if (s.body !== body(stream, s.n, s.body.length) || s.body.length === 0)
                die(1, `${stream}: the body of slot ${s.slot} is not that of transaction ${s.n}`);
        }
        if (all.slots.length !== Math.min(slots, newest))
            die(1, `${stream}: ${all.slots.length} slots for ${newest} transactions`);
    }
}
