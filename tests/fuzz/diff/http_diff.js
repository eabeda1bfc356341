#!/usr/bin/env node
'use strict';
/*
 * http_diff: chmux's HTTP parser against llhttp, the parser inside Node, in its strict mode.
 *
 * usage: node http_diff.js DRIVER CORPUS_DIR [MUTATIONS [SEED]]
 *
 * Cases are the fuzz corpora and mutations of them (same seed, same cases). Every case is a stream
 * of messages. Rules, message by message:
 *   - where both parsers complete a message, its end, payload, method and target are the same;
 *   - where llhttp refuses, chmux has not accepted the head, unless ON_PURPOSE below says why not;
 *   - chmux may refuse what llhttp takes (those are counted by reason).
 * Exit 0: no difference but those on purpose. 1: differences, printed. 77: no llhttp in this Node.
 */
const fs = require('fs');
const path = require('path');
const { spawnSync } = require('child_process');

/*
 * Where chmux takes what llhttp refuses. None moves the end of a message. `code` is llhttp's,
 * `reason` a part of its text, and `holds` checks on the bytes of the refused message (and those
 * before it) that this row is really the reason. A row that no case hits counts as a difference,
 * so that the table cannot rot.
 */
const ON_PURPOSE = [
    { code: 'HPE_INVALID_METHOD', why: 'any method token passes: ClickHouse answers 501 itself' },
    { code: 'HPE_INVALID_URL', why: 'targets pass byte for byte: ClickHouse takes any path' },
    { code: 'HPE_INVALID_VERSION',
        holds: (m) => /^(\r\n)*(\S+ \S+ HTTP\/1\.[2-9]\r\n|HTTP\/1\.[2-9] )/.test(m),
        why: 'HTTP/1.2 to 1.9 are read as 1.1 (RFC 9110 section 2.5)' },
    { code: 'HPE_INVALID_CHUNK_SIZE', holds: (m) => /\r\n[0-9a-fA-F]+[ \t]+(;|\r|$)/.test(m),
        why: 'spaces after a chunk size, as ClickHouse takes (RFC 9112 section 7.1.1, BWS)' },
    { code: 'HPE_CLOSED_CONNECTION',
        holds: (m, before) => /\r\n0[^\n]*\n([^\r]+\r\n)*connection:/i.test(before),
        why: 'Connection as a trailer means nothing (RFC 9110 section 6.5.1)' },
    { code: 'HPE_STRICT', reason: 'chunk extension', holds: hasExtension,
        why: 'extensions of any text: all parsers skip them to the CRLF' },
];

function hasExtension(m) {
    return /\r\n[0-9a-fA-F]+[ \t]*;/.test(m);
}

/* ---- llhttp ---- */

let binding;
try {
    binding = process.binding('http_parser');
} catch (e) {
    console.log(`skipped: this Node gives no access to its parser (${e.message})`);
    process.exit(77);
}
const { HTTPParser } = binding;
const METHODS = binding.allMethods || binding.methods;
const MAX_HEAD = 8 << 20;
const FNV_START = 2166136261;

function hex(text) {
    return text.length === 0 ? '-' : Buffer.from(text, 'latin1').toString('hex');
}

function llhttp(kind, bytes) {
    const parser = new HTTPParser();
    const type = kind === 'Q' ? HTTPParser.REQUEST : HTTPParser.RESPONSE;
    parser.initialize(type, {}, MAX_HEAD, HTTPParser.kLenientNone);
    const messages = [];
    let state = 'clean', url = '', method = '', payload = 0, hash = FNV_START;
    let at = 0, upgraded = false;
    parser[HTTPParser.kOnMessageBegin] = () => {
        state = 'head';
        url = '';
        payload = 0;
        hash = FNV_START;
    };
    /* Many headers come in several calls; trailers too, with the target once more. */
    parser[HTTPParser.kOnHeaders] = (headers, part) => {
        if (state === 'head')
            url += part;
    };
    parser[HTTPParser.kOnHeadersComplete] =
        (major, minor, headers, code, part, status, reason, upgrade) => {
            method = kind === 'Q' ? METHODS[code] : String(status);
            if (kind === 'Q')
                url += part || '';
            upgraded = upgrade;
            state = 'body';
            return kind === 'H' ? 1 : 0;
        };
    parser[HTTPParser.kOnBody] = (chunk) => {
        payload += chunk.length;
        for (const c of chunk)
            hash = Math.imul(hash ^ c, 16777619);
    };
    parser[HTTPParser.kOnMessageComplete] = () => {
        const end = at + 1;
        messages.push({ method: hex(method), target: hex(url), end, payload, hash: hash >>> 0 });
        state = upgraded ? 'stop' : 'clean';
    };
    /* Byte by byte, so that every message complete is known to the byte. */
    let why = '';
    for (; at < bytes.length && state !== 'stop'; at++) {
        const n = parser.execute(bytes.subarray(at, at + 1));
        if (n instanceof Error) {
            state = 'reject';
            why = `${n.code} ${n.reason}`;
            break;
        }
    }
    parser.close();
    return { messages, state, why };
}

/* ---- chmux ---- */

function chmux(driver, cases) {
    const parts = [];
    for (const c of cases) {
        const head = Buffer.alloc(5);
        head.write(c.kind, 0, 'latin1');
        head.writeUInt32LE(c.bytes.length, 1);
        parts.push(head, c.bytes);
    }
    const run = spawnSync(driver, [], { input: Buffer.concat(parts), maxBuffer: 1 << 30 });
    if (run.status !== 0)
        throw new Error(`${driver} failed: ${run.error || run.stderr}`);
    const verdicts = [];
    let messages = [];
    for (const line of run.stdout.toString('latin1').split('\n')) {
        const f = line.split(' ');
        if (f[0] === 'm') {
            messages.push({ method: f[1], target: f[2], end: +f[3], payload: +f[4], hash: +f[5] });
        } else if (f[0] === 'f') {
            verdicts.push({ messages, state: f[1], why: f.slice(2).join(' ') });
            messages = [];
        }
    }
    if (verdicts.length !== cases.length)
        throw new Error(`${cases.length} cases, ${verdicts.length} verdicts`);
    return verdicts;
}

/* ---- cases ---- */

function corpus(dir) {
    const cases = [];
    const add = (kind, name, bytes) => cases.push({ kind, name, bytes });
    const each = (folder, fn) => {
        for (const name of fs.readdirSync(path.join(dir, folder)).sort())
            fn(`${folder}/${name}`, fs.readFileSync(path.join(dir, folder, name)));
    };
    each('http_request', (name, b) => {
        if (b.length < 65536)
            add('Q', name, b);
    });
    each('http_response', (name, b) => add(b[0] % 4 === 1 ? 'H' : 'G', name, b.subarray(1)));
    /* A chunked body behind a head, both ways, and a request after it: its end must be seen. */
    const post = Buffer.from('POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n');
    const ok = Buffer.from('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
    const next = Buffer.from('GET /next HTTP/1.1\r\n\r\n');
    each('http_body', (name, b) => {
        if (b.length === 0 || b[0] >= 0xc0)
            return;
        add('Q', name, Buffer.concat([post, b.subarray(1)]));
        add('Q', `${name} + next`, Buffer.concat([post, b.subarray(1), next]));
        add('G', name, Buffer.concat([ok, b.subarray(1)]));
    });
    return cases;
}

/* xorshift32: the same cases on every machine. */
function random(seed) {
    let x = seed >>> 0 || 1;
    return (n) => {
        x ^= x << 13;
        x >>>= 0;
        x ^= x >>> 17;
        x ^= x << 5;
        x >>>= 0;
        return x % n;
    };
}

const BYTES = '\r\n\t \0:;,=/"-+0159afgxAFZ\x7f\x80\xff'.split('');
const PIECES = ['\r\n', '\r\n\r\n', '\n', '\r', '\r\n ', ' : ', 'Content-Length: 5\r\n',
    'Content-Length: 0\r\n', 'content-length:\t3 \r\n', 'Content-Length: 5, 5\r\n',
    'Transfer-Encoding: chunked\r\n', 'transfer-encoding:CHUNKED\r\n',
    'Transfer-Encoding: gzip, chunked\r\n', 'Transfer-Encoding: identity\r\n',
    'Connection: close\r\n', 'Connection: keep-alive\r\n', '0\r\n\r\n', '5\r\nabcde\r\n', ';a=b',
    ' \r\n', '00000000000000000000', '7fffffffffffffff', '8000000000000000', '10000000000000001',
    'GET / HTTP/1.1\r\n\r\n', 'POST / HTTP/1.1\r\n', 'HTTP/1.1 200 OK\r\n', 'HTTP/1.0', 'HTTP/1.3',
    'X-A: b\r\n', 'HEAD', '\x00'];

function mutate(rnd, text, other) {
    const at = rnd(text.length + 1);
    const len = rnd(8) === 0 ? rnd(text.length - at + 1) : rnd(4);
    switch (rnd(7)) {
    case 0: return text.slice(0, at) + BYTES[rnd(BYTES.length)] + text.slice(at + 1);
    case 1: return text.slice(0, at) + BYTES[rnd(BYTES.length)] + text.slice(at);
    case 2: return text.slice(0, at) + text.slice(at + 1 + len);
    case 3: return text.slice(0, at) + PIECES[rnd(PIECES.length)] + text.slice(at);
    case 4: { /* a piece where a line begins: where fields and chunks are */
        const line = text.indexOf('\n', at) + 1;
        return text.slice(0, line) + PIECES[rnd(PIECES.length)] + text.slice(line);
    }
    case 5: return text.slice(0, at) + text.slice(at, at + len) + text.slice(at);
    default: return text.slice(0, at) + other.slice(rnd(other.length + 1));
    }
}

function mutations(seeds, count, seed) {
    const rnd = random(seed);
    const cases = [];
    for (let i = 0; i < count; i++) {
        const base = seeds[rnd(seeds.length)];
        let text = base.bytes.toString('latin1');
        for (let k = rnd(3); k >= 0; k--) {
            let other = seeds[rnd(seeds.length)];
            if (other.kind !== base.kind)
                other = base;
            text = mutate(rnd, text, other.bytes.toString('latin1'));
        }
        if (text.length <= 2048) /* llhttp goes byte by byte */
            cases.push({
                kind: base.kind, name: `${base.name} #${i}`, bytes: Buffer.from(text, 'latin1'),
            });
    }
    return cases;
}

/* ---- comparison ---- */

function onPurpose(why, bytes, start) {
    const text = bytes.toString('latin1', start);
    const before = bytes.toString('latin1', 0, start);
    for (const row of ON_PURPOSE) {
        const same = why.split(' ')[0] === row.code && why.includes(row.reason || '');
        if (same && (!row.holds || row.holds(text, before)))
            return row;
    }
    return null;
}

/* What is wrong with this case: text, or null; counts into stats. */
function compare(c, ours, theirs, stats) {
    for (let i = 0; ; i++) {
        const a = ours.messages[i], b = theirs.messages[i];
        if (a && b) {
            stats.messages++;
            for (const key of ['end', 'payload', 'hash', 'method', 'target'])
                if (a[key] !== b[key])
                    return `message ${i}: ${key} ${a[key]} here, ${b[key]} in llhttp`;
            continue;
        }
        const last = !a && ours.state;
        if (last === 'reject') {
            if (theirs.state !== 'reject' || b)
                stats.stricter[ours.why] = (stats.stricter[ours.why] || 0) + 1;
            return null;
        }
        if (last === 'stop')
            return null;
        if (!b && theirs.state === 'reject') {
            if (last === 'head' || last === 'clean')
                return null; /* nothing accepted here yet */
            const start = i === 0 ? 0 : theirs.messages[i - 1].end;
            const row = onPurpose(theirs.why, c.bytes, start);
            if (!row)
                return `message ${i}: ${a ? 'accepted' : 'head accepted'} here, llhttp: ${theirs.why}`;
            row.hits = (row.hits || 0) + 1;
            return null;
        }
        if (!b && theirs.state === 'stop')
            return null;
        if (!!a !== !!b)
            return `message ${i}: ${a ? `ends at ${a.end}` : ours.state} here, ` +
                `${b ? `ends at ${b.end}` : theirs.state} in llhttp`;
        /* llhttp counts empty lines before a request as nothing yet. */
        return last === theirs.state || (last === 'head' && theirs.state === 'clean')
            ? null : `${last} here, ${theirs.state} in llhttp`;
    }
}

function main(argv) {
    if (argv.length < 2 || argv.length > 4) {
        console.error('usage: node http_diff.js DRIVER CORPUS_DIR [MUTATIONS [SEED]]');
        return 2;
    }
    const seeds = corpus(argv[1]);
    const cases = seeds.concat(mutations(seeds, +(argv[2] || 50000), +(argv[3] || 2112)));
    const verdicts = chmux(argv[0], cases);
    const stats = { messages: 0, stricter: {} };
    let differences = 0;
    cases.forEach((c, i) => {
        const wrong = compare(c, verdicts[i], llhttp(c.kind, c.bytes), stats);
        if (wrong === null)
            return;
        if (++differences <= 20)
            console.log(`DIFFERENCE ${c.name}: ${wrong}\n  ${c.kind} ` +
                JSON.stringify(c.bytes.toString('latin1')));
    });
    const sum = (o) => Object.values(o).reduce((a, b) => a + b, 0);
    console.log(`stricter than llhttp ${process.versions.llhttp}: ${sum(stats.stricter)} cases`);
    for (const [why, n] of Object.entries(stats.stricter).sort((a, b) => b[1] - a[1]))
        console.log(`  ${String(n).padStart(6)}  ${why}`);
    console.log('laxer on purpose:');
    for (const row of ON_PURPOSE) {
        differences += row.hits ? 0 : 1; /* a row without a case is one too many */
        console.log(`  ${String(row.hits || 0).padStart(6)}  ${row.why} (${row.code})`);
    }
    console.log(`${cases.length} cases (${seeds.length} of the corpus), ${stats.messages} messages ` +
        `complete in both, ${differences} differences`);
    return differences === 0 ? 0 : 1;
}

process.exitCode = main(process.argv.slice(2));
