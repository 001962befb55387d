// SPDX-License-Identifier: Apache-2.0
// etcd under load: see load_common.mjs. PLACE is the path of the server's Unix socket. The JSON
// gateway is used, so that no client library is needed.
import http from 'node:http';
import {run} from './load_common.mjs';

let place;
const agent = new http.Agent({keepAlive: true});
const encode = (text) => Buffer.from(text).toString('base64');
const decode = (text) => Buffer.from(text, 'base64').toString();
const key = (stream, n) => `ids/${stream}/${String(n).padStart(10, '0')}`;

function post(path, message)
{
    const text = JSON.stringify(message);
    return new Promise((resolve, reject) => {
        const request = http.request({socketPath: place, path, agent, method: 'POST', timeout: 20000}, (response) => {
            let answer = '';
            response.on('data', (part) => { answer += part; });
            response.on('error', reject);
            response.on('end', () => {
                if (response.statusCode === 200)
                    resolve(JSON.parse(answer));
                else
                    reject(new Error(`${path}: ${response.statusCode} ${answer}`));
            });
        });
        request.on('timeout', () => request.destroy(new Error(`${path}: no answer`)));
        request.on('error', reject);
        request.end(text);
    });
}

async function range(prefix)
{
    const end = prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
    const answer = await post('/v3/kv/range', {key: encode(prefix), range_end: encode(end)});
    return (answer.kvs ?? []).map((kv) => ({key: decode(kv.key), value: decode(kv.value ?? '')}));
}

const newest_id = (list) => list.reduce((most, kv) => Math.max(most, Number(kv.key.split('/')[2])), 0);

await run({
    async open(where) { place = where; },
    async newest(stream) { return newest_id(await range(`ids/${stream}/`)); },
    async commit(stream, n, slot, body) {
        const put = (k, v) => ({request_put: {key: encode(k), value: encode(v)}});
        const answer = await post('/v3/kv/txn',
            {success: [put(key(stream, n), ''), put(`slots/${stream}/${slot}`, `${n} ${body}`)]});
        if (!answer.succeeded)
            throw new Error(`the transaction was not made: ${JSON.stringify(answer)}`);
    },
    async all(stream) {
        const slots = await range(`slots/${stream}/`);
        return {
            ids: (await range(`ids/${stream}/`)).map((kv) => Number(kv.key.split('/')[2])).sort((a, b) => a - b),
            slots: slots.map((kv) => {
                const [n, body] = kv.value.split(' ');
                return {slot: Number(kv.key.split('/')[2]), n: Number(n), body};
            }),
        };
    },
    async close() { agent.destroy(); },
});
