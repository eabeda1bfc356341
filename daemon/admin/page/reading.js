/* What the daemon says, in one form: from /api/v1/status, or from /metrics where only that is allowed. */

export const LATENCIES = ["queue_wait", "connect", "first_byte", "total"];


/* Prometheus text as [{name, labels, value}]. */
export function parseMetrics(text) {
  const rows = [];
  for (const line of text.split("\n")) {
    const parts = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!parts)
      continue;
    const labels = {};
    for (const [, key, value] of (parts[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
      labels[key] = value;
    rows.push({ name: parts[1], labels, value: Number(parts[3]) });
  }
  return rows;
}

function histogram(rows, name) {
  const bounds = new Map(); /* of all label sets together */
  for (const row of rows)
    if (row.name === `${name}_bucket`) {
      const bound = row.labels.le === "+Inf" ? Infinity : Number(row.labels.le) * 1000;
      bounds.set(bound, (bounds.get(bound) ?? 0) + row.value);
    }
  const sorted = [...bounds].sort((a, b) => a[0] - b[0]);
  return {
    bounds_ms: sorted.slice(0, -1).map(([bound]) => bound),
    buckets: sorted.map(([, upTo], i) => upTo - (i > 0 ? sorted[i - 1][1] : 0)),
  };
}

export function fromMetrics(text) {
  const rows = parseMetrics(text);
  /* The sum over whatever other labels there are; undefined if there is none. */
  const sum = (name, want = {}) => {
    const found = rows.filter((row) => row.name === `chmux_${name}` &&
      Object.entries(want).every(([key, value]) => row.labels[key] === value));
    return found.length ? found.reduce((all, row) => all + row.value, 0) : undefined;
  };
  /* Of all upstreams, or of one. */
  const poolOf = (of) => ({
    pool: {
      size: sum("upstream_pool_size", of), peak: sum("upstream_connections_peak", of),
      ...Object.fromEntries(["active", "idle", "connecting", "closing"].map(
        (state) => [state, sum("upstream_connections", { ...of, state })])),
    },
    queue: {
      waiting: sum("queue_waiting", of) - sum("sessions_waiting", of),
      waiting_for_session: sum("sessions_waiting", of), size: sum("queue_size", of),
    },
    addresses: {
      up: sum("upstream_addresses", { ...of, state: "up" }),
      ejected: sum("upstream_addresses", { ...of, state: "ejected" }),
    },
  });
  const pools = rows.filter((row) => row.name === "chmux_upstream_pool_size");
  const paused = (row) => sum("upstream_paused", { upstream: row.labels.upstream }) > 0;
  const ended = (result) => sum("exchanges_finished_total", { result });
  const bytes = (side, direction) => sum("bytes_total", { side, direction });
  const names = {
    queue_wait: "chmux_queue_wait_seconds", connect: "chmux_upstream_connect_seconds",
    first_byte: "chmux_first_byte_seconds", total: "chmux_request_seconds",
  };
  const latency = {};
  for (const key of LATENCIES) {
    latency[key] = histogram(rows, names[key]);
    latency.bounds_ms = latency[key].bounds_ms;
  }
  return {
    state: sum("draining") ? "draining" : pools.length && pools.every(paused) ? "paused" : "serving",
    version: rows.find((row) => row.name === "chmux_build_info")?.labels.version,
    clients: { open: sum("clients") },
    requests: {
      running: sum("exchanges"), started: sum("requests_total"), complete: ended("complete"),
      refused: ended("refused"), cut: ended("cut_upstream"), client_gone: ended("client_gone"),
    },
    bytes: {
      from_clients: bytes("client", "in"), to_clients: bytes("client", "out"),
      from_servers: bytes("upstream", "in"), to_servers: bytes("upstream", "out"),
    },
    ...poolOf({}),
    upstreams: pools.map((row) => {
      const one = poolOf({ upstream: row.labels.upstream });
      return { ...one, name: row.labels.upstream, queue: { ...one.queue, paused: paused(row) } };
    }),
    memory: {
      used_bytes: sum("memory_used_bytes"), limit_bytes: sum("memory_limit_bytes"),
      resident_bytes: rows.find((row) => row.name === "process_resident_memory_bytes")?.value,
    },
    latency,
  };
}

/* The q-quantile in ms of what came in between two histograms, linear inside a bucket as Prometheus does it;
   null: nothing came. Above the last bound the last bound is all that is known. */
export function quantile(q, bounds, before, after) {
  const counts = after.map((n, i) => n - (before?.[i] ?? 0));
  const all = counts.reduce((a, b) => a + b, 0);
  if (all <= 0)
    return null;
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    if (below + counts[i] >= q * all && counts[i] > 0) {
      const from = i > 0 ? bounds[i - 1] : 0;
      return from + (bounds[i] - from) * ((q * all - below) / counts[i]);
    }
    below += counts[i];
  }
  return bounds.at(-1);
}

const WINDOW_MS = 10000; /* of percentiles */
const RATE_MS = 1000; /* at least, between the two readings a rate is made of */

/* Readings in, samples out: gauges as they are, rates and percentiles against earlier readings. */
export class History {
  constructor() {
    this.samples = [];
    this.readings = [];
  }

  /* true: the daemon is another one than before, and history begins again. */
  add(reading, t, keepMs, gap) {
    const last = this.readings.at(-1)?.reading;
    const restarted = last !== undefined &&
      (last.pid !== reading.pid || last.requests.started > reading.requests.started);
    if (restarted)
      this.samples = this.readings = [];
    this.readings = this.readings.filter((one) => t - one.t <= WINDOW_MS * 1.5);
    this.samples = this.samples.filter((one) => t - one.t <= keepMs);
    this.samples.push(this.#sample(reading, t, gap));
    this.readings.push({ reading, t });
    return restarted;
  }

  #sample(reading, t, gap) {
    const { pool, queue, requests, bytes, latency } = reading;
    const sample = {
      t, gap, size: pool.size, active: pool.active, idle: pool.idle, opening: pool.connecting + pool.closing,
      waiting: queue.waiting, sessions: queue.waiting_for_session,
    };
    const before = this.readings.findLast((one) => t - one.t >= RATE_MS * 0.9) ?? this.readings[0];
    const rate = (of) => before ? Math.max(0, of(reading) - of(before.reading)) * 1000 / (t - before.t) : null;
    Object.assign(sample, {
      requests: rate((r) => r.requests.complete), refused: rate((r) => r.requests.refused),
      cut: rate((r) => r.requests.cut + r.requests.client_gone),
      ...Object.fromEntries(Object.keys(bytes).map((key) => [key, rate((r) => r.bytes[key])])),
    });
    const start = this.readings.find((one) => t - one.t <= WINDOW_MS);
    for (const key of LATENCIES)
      for (const [name, q] of [["p50", 0.5], ["p90", 0.9], ["p99", 0.99]])
        sample[`${key}.${name}`] = start
          ? quantile(q, latency.bounds_ms, start.reading.latency[key].buckets, latency[key].buckets)
          : null;
    return sample;
  }
}
