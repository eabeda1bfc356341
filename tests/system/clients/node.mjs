// @clickhouse/client: node node.mjs URL QUERY_ID (of a query that is aborted). Run where node_modules holds the client.
import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'

const url = process.argv[2]
const table = 'client_node'
const client = createClient({ url, max_open_connections: 32, log: { level: ClickHouseLogLevel.OFF } })

const json = async (query, extra = {}) =>
  (await client.query({ query, format: 'JSONEachRow', ...extra })).json()

assert.equal((await client.ping()).success, true)
assert.deepEqual(await json('SELECT 1 AS a'), [{ a: 1 }])
await client.command({ query: `DROP TABLE IF EXISTS ${table}` })
await client.command({ query: `CREATE TABLE ${table} (a Int32, s String) ENGINE = Memory` })
await client.insert({
  table,
  values: Array.from({ length: 20000 }, (_, i) => ({ a: i, s: `row ${i}` })),
  format: 'JSONEachRow',
})
// A stream of unknown length: chunked upload.
await client.insert({
  table,
  values: Readable.from((function* () { for (let i = 0; i < 20000; i++) yield { a: i, s: 'streamed' } })()),
  format: 'JSONEachRow',
})
assert.deepEqual(await json(`SELECT count() AS n, sum(a) AS s FROM ${table}`, { clickhouse_settings: { output_format_json_quote_64bit_integers: 0 } }), [{ n: 40000, s: 399980000 }])

// Streamed read.
let rows = 0
const result = await client.query({ query: 'SELECT number FROM numbers(300000)', format: 'JSONEachRow' })
for await (const part of result.stream()) rows += part.length
assert.equal(rows, 300000)

// Compression both ways, parameters, 100 queries at once.
const zipped = createClient({ url, compression: { request: true, response: true } })
await zipped.insert({ table, values: [{ a: 1, s: 'z'.repeat(100000) }], format: 'JSONEachRow' })
const long = await (await zipped.query({ query: `SELECT max(length(s)) AS n FROM ${table}`, format: 'JSONEachRow' })).json()
assert.equal(Number(long[0].n), 100000)
await zipped.close()
assert.deepEqual(await json('SELECT {x: UInt8} AS x', { query_params: { x: 7 } }), [{ x: 7 }])
const many = await Promise.all(Array.from({ length: 100 }, (_, i) => json(`SELECT ${i} AS i, sleep(0.01) AS z`)))
many.forEach((r, i) => assert.equal(r[0].i, i))

// Errors: before the first row, and after some.
await assert.rejects(json('SELECT nope'), (e) => e.code === '47')
await assert.rejects(async () => {
  const r = await client.query({
    query: "SELECT number, sleepEachRow(0.02), throwIf(number = 8, 'boom') FROM numbers(20) SETTINGS max_block_size = 1",
    format: 'JSONEachRow',
  })
  await r.json()
})
const alice = createClient({ url, username: 'alice', password: 'secret' })
assert.deepEqual(await (await alice.query({ query: 'SELECT currentUser() AS u', format: 'JSONEachRow' })).json(), [{ u: 'alice' }])
await alice.close()

// An aborted query leaves the client usable.
const abort = new AbortController()
const running = client.query({ query: 'SELECT sum(sleepEachRow(0.05)) FROM numbers(1000) SETTINGS max_block_size = 1', abort_signal: abort.signal, query_id: process.argv[3] })
await json('SELECT 1')
abort.abort()
await assert.rejects(running)
assert.deepEqual(await json('SELECT 2 AS a'), [{ a: 2 }])
await client.command({ query: `DROP TABLE ${table}` })
await client.close()
console.log('OK')
