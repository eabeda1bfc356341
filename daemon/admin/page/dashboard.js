/* The page: asks the daemon, and shows what it says. Text from the daemon only ever becomes text nodes. */
import { Plot } from "./plot.js";
import { History, fromMetrics } from "./reading.js";

const $ = (id) => document.getElementById(id);
const KEEP_MS = 900000; /* of samples, and the longest range */
const ASK_MS = 5000; /* an answer that takes longer is none */
const DENIED_MS = 10000;
const REQUESTS_SHOWN = 15, ERRORS_SHOWN = 8;

/* ---- numbers as text ---- */

function digits(n, most = 3) {
  const places = n >= 100 || n === 0 ? 0 : n >= 10 ? 1 : 2;
  return String(Number(n.toFixed(Math.min(places, most))));
}

function count(n) {
  if (n >= 1e9)
    return `${digits(n / 1e9)} G`;
  if (n >= 1e6)
    return `${digits(n / 1e6)} M`;
  return n >= 1e4 ? `${digits(n / 1e3)} k` : digits(n, Number.isInteger(n) ? 0 : 2);
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1000 && unit < units.length - 1; unit++)
    n /= 1024;
  return `${digits(n, unit === 0 ? 0 : 2)} ${units[unit]}`;
}

function millis(ms) {
  if (ms < 1000)
    return `${digits(ms)} ms`;
  if (ms < 60000)
    return `${digits(ms / 1000, 1)} s`;
  const minutes = Math.floor(ms / 60000);
  if (minutes < 60)
    return `${minutes} min ${Math.floor((ms % 60000) / 1000)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const or = (format) => (value) => value === null || value === undefined ? "–" : format(value);

/* ---- asking ---- */

class Refused extends Error {
  constructor(answer, path) {
    super(answer.message ?? `${path} was refused`);
    this.error = answer.error;
    this.allowedBy = answer.allowed_by;
  }
}

async function ask(path, method = "GET") {
  const answer = await fetch(path, {
    method, cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(ASK_MS),
    headers: method === "POST" ? { "X-Chmux-Control": "1" } : {},
  });
  const body = path.startsWith("/api/") ? await answer.json() : await answer.text();
  if (answer.ok)
    return body;
  throw new Refused(body, path);
}

/* What the API says now; only the metrics where it is not allowed, which is asked again now and then. */
const denial = { error: null, until: 0 };

async function askAll() {
  if (performance.now() >= denial.until)
    try {
      const rights = await ask("/api/v1/");
      const [status, exchanges, endpoints, errors] = await Promise.all([
        ask("/api/v1/status"), ask(`/api/v1/exchanges?limit=${REQUESTS_SHOWN}`),
        ask("/api/v1/endpoints"), ask(`/api/v1/errors?limit=${ERRORS_SHOWN}`)]);
      return { rights, status, exchanges, endpoints, errors, denied: null };
    } catch (error) {
      if (!(error instanceof Refused))
        throw error;
      denial.error = error;
      denial.until = performance.now() + DENIED_MS;
    }
  return { status: fromMetrics(await ask("/metrics")), denied: denial.error };
}

/* ---- plots ---- */

const rate = (format) => (value, tick) => tick ? format(value) : `${format(value)}/s`;

function makePlots() {
  const parent = $("plots");
  return [
    new Plot(parent, {
      title: "Upstream connections", stacked: true, whole: true, cap: "size", format: count,
      series: [{ key: "active", label: "in use", tone: "blue" }, { key: "idle", label: "idle", tone: "teal", dash: 1 },
        { key: "opening", label: "opening or closing", tone: "amber", dash: 2 }],
    }),
    new Plot(parent, {
      title: "Waiting requests", stacked: true, whole: true, format: count,
      series: [{ key: "waiting", label: "for a connection", tone: "amber" },
        { key: "sessions", label: "for their session", tone: "violet", dash: 1 }],
    }),
    new Plot(parent, {
      title: "Requests per second", format: rate(count),
      series: [{ key: "requests", label: "complete", tone: "teal" }, { key: "refused", label: "refused", tone: "red", dash: 1 },
        { key: "cut", label: "cut or left", tone: "amber", dash: 2 }],
    }),
    new Plot(parent, {
      title: "Bytes per second", base: 1024, format: rate(bytes),
      series: [{ key: "to_clients", label: "to clients", tone: "blue" },
        { key: "from_clients", label: "from clients", tone: "violet", dash: 1 },
        { key: "from_servers", label: "from servers", tone: "grey", dash: 2 }],
    }),
    new Plot(parent, {
      title: "Request time", hint: "over 10 s, logarithmic", log: true, format: millis,
      series: [{ key: "total.p50", label: "median", tone: "teal" }, { key: "total.p90", label: "90 %", tone: "amber", dash: 1 },
        { key: "total.p99", label: "99 %", tone: "red", dash: 2 }],
    }),
    new Plot(parent, {
      title: "Where the time goes", hint: "99 %, over 10 s, logarithmic", log: true, format: millis,
      series: [{ key: "queue_wait.p99", label: "until a connection is free", tone: "amber" },
        { key: "first_byte.p99", label: "until the first byte", tone: "blue", dash: 1 },
        { key: "connect.p99", label: "connecting", tone: "violet", dash: 2 }],
    }),
  ];
}

/* ---- numbers ---- */

function bar(id, part, whole) {
  const share = whole > 0 ? Math.min(1, part / whole) : 0;
  $(id).style.width = `${(share * 100).toFixed(1)}%`;
  $(id).parentNode.dataset.level = share >= 1 ? "full" : share >= 0.8 ? "high" : "";
}

function showNumbers(status, sample) {
  const { pool, queue, requests, clients, memory } = status;
  const perSecond = (format) => or((v) => `${format(v)}/s`);
  const waiting = queue.waiting + queue.waiting_for_session;
  const texts = {
    "pool.active": or(count)(pool.active), "pool.size": or(count)(pool.size), "pool.idle": or(count)(pool.idle),
    "pool.connecting": or(count)(pool.connecting), "pool.peak": or(count)(pool.peak),
    "queue.all": or(count)(waiting), "queue.size": or(count)(queue.size),
    "requests.running": or(count)(requests.running), "requests.complete": or(count)(requests.complete),
    "clients.open": or(count)(clients.open),
    "rate.requests": or(count)(sample.requests),
    "rate.failed": or(count)(sample.refused === null ? null : sample.refused + sample.cut),
    "rate.to_clients": perSecond(bytes)(sample.to_clients), "rate.from_clients": perSecond(bytes)(sample.from_clients),
    "rate.to_servers": perSecond(bytes)(sample.to_servers), "rate.from_servers": perSecond(bytes)(sample.from_servers),
    "total.p50": or(millis)(sample["total.p50"]), "total.p99": or(millis)(sample["total.p99"]),
    "queue_wait.p99": or(millis)(sample["queue_wait.p99"]),
    "memory.used": or(bytes)(memory.used_bytes), "memory.limit": or(bytes)(memory.limit_bytes),
    "memory.resident": or(bytes)(memory.resident_bytes),
  };
  for (const node of document.querySelectorAll("[data-k]"))
    setText(node, texts[node.dataset.k]);
  bar("pool-bar", pool.active, pool.size);
  bar("queue-bar", waiting, queue.size);
  bar("memory-bar", memory.used_bytes, memory.limit_bytes);
  const about = [status.version && `version ${status.version}`, status.pid && `pid ${status.pid}`,
    status.uptime_ms && `up ${millis(status.uptime_ms)}`];
  setText($("about"), [location.host, ...about.filter(Boolean)].join(" · "));
}

/* Untouched where it is the same: selections and screen readers stay where they are. */
function setText(node, text) {
  if (node.textContent !== text)
    node.textContent = text;
}

function showState(state) {
  $("state").dataset.state = state;
  document.body.dataset.state = state;
  setText($("state"), state);
  document.title = state === "serving" ? "chmux" : `chmux: ${state}`;
}

/* ---- banners ---- */

function showBanners(banners) {
  const text = JSON.stringify(banners);
  if ($("banners").dataset.now === text)
    return;
  $("banners").dataset.now = text;
  $("banners").replaceChildren(...banners.map(({ kind, title, detail }) => {
    const node = document.createElement("div");
    node.className = "banner";
    node.dataset.kind = kind;
    const head = document.createElement("b");
    head.textContent = title;
    node.append(head, detail ?? "");
    return node;
  }));
}

function bannersOf({ status, denied }) {
  const found = [];
  if (denied)
    found.push({ kind: "warn", title: `Only metrics are shown: ${denied.message}.`,
      detail: `Servers, running requests and errors need more. Allowed by: ${denied.allowedBy ?? "another address"}.` });
  if (status.state === "draining")
    found.push({ kind: "warn", title: "Draining.", detail: "chmuxd ends when all that runs is done; it is not ready for new clients." });
  if (status.state === "paused")
    found.push({ kind: "warn", title: "Paused.", detail: "Requests wait for their connection until somebody resumes (chmux resume)." });
  if (status.addresses.up === 0 && status.addresses.ejected > 0)
    found.push({ kind: "bad", title: "No server works.", detail: "Every address is ejected after failures and probed again; see the last errors." });
  return found;
}

/* ---- tables ---- */

/* Rows keyed by what they stand for: one that stays keeps its nodes, and so the focus in them. */
function syncRows(body, items, keyOf, makeRow, update, empty) {
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const rows = items.map((item) => {
    const key = String(keyOf(item));
    const row = old.get(key) ?? makeRow(item);
    old.delete(key);
    row.dataset.key = key;
    update(row, item);
    return row;
  });
  if (rows.length === 0) {
    const row = old.get("empty") ?? document.createElement("tr");
    row.dataset.key = "empty";
    row.className = "empty";
    if (row.cells.length === 0)
      row.insertCell().colSpan = 8;
    setText(row.cells[0], empty);
    rows.push(row);
  }
  for (const [i, row] of rows.entries())
    if (body.rows[i] !== row)
      body.insertBefore(row, body.rows[i] ?? null);
  while (body.rows.length > rows.length)
    body.rows[rows.length].remove();
}

function rowOf(...classes) {
  const row = document.createElement("tr");
  for (const name of classes)
    row.insertCell().className = name;
  return row;
}

function setCells(row, texts) {
  texts.forEach((text, i) => {
    const cell = row.cells[i], shown = text === null || text === undefined || text === "" ? "–" : String(text);
    setText(cell, shown);
    if (cell.className === "text" && cell.title !== shown)
      cell.title = shown;
  });
}

function setBadge(cell, state) {
  let badge = cell.querySelector(".badge");
  if (!badge) {
    badge = document.createElement("span");
    badge.className = "badge";
    cell.replaceChildren(badge);
  }
  badge.dataset.state = state;
  setText(badge, state);
}

function nameOf(exchange) {
  return `${exchange.id}${exchange.query_id ? `, query ${exchange.query_id}` : ""} of ${exchange.user || "the default user"}`;
}

function makeRequestRow(exchange) {
  const row = rowOf("num", "", "text", "text", "", "num", "num", "num");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "kill danger";
  button.textContent = "Kill";
  button.setAttribute("aria-label", `Kill request ${nameOf(exchange)}`);
  button.addEventListener("click", () => confirmKill(exchange));
  row.cells[7].append(button);
  return row;
}

function showRequests({ exchanges: list, running }, mayKill) {
  const shown = list.length < running ? `(${list.length} of ${running})` : list.length ? `(${running})` : "";
  setText($("requests-note"), shown);
  syncRows($("requests-rows"), list, (e) => e.id, makeRequestRow, (row, e) => {
    const server = e.upstream && e.upstream !== "default" ? `${e.upstream}: ${e.address ?? "–"}` : e.address;
    setCells(row, [millis(e.age_ms), row.cells[1].textContent, e.user || "default", e.query_id, server,
      bytes(e.request_bytes), bytes(e.response_bytes)]);
    setBadge(row.cells[1], e.state);
    row.cells[7].firstChild.hidden = !mayKill;
  }, "Nothing runs.");
}

function showServers({ endpoints }) {
  const up = endpoints.filter((e) => e.state === "up").length;
  setText($("servers-note"), endpoints.length ? `(${up} of ${endpoints.length} up)` : "");
  const key = (e) => [e.upstream, e.host, e.port, e.address].join(" ");
  syncRows($("servers-rows"), endpoints, key, () => rowOf("", "", "num", "num", "num", "num", "wide"), (row, e) => {
    const name = `${e.host}:${e.port}`;
    const address = e.address === null || e.address === name ? name : `${name} (${e.address})`;
    const upstream = e.upstream && e.upstream !== "default" ? `${e.upstream}: ` : "";
    setCells(row, [`${upstream}${address}${e.tls ? ", TLS" : ""}`, row.cells[1].textContent, e.active, e.idle,
      count(e.requests), e.failures,
      e.probe_in_ms === null ? e.last_error : `${e.last_error ?? ""} (asked again in ${millis(e.probe_in_ms)})`]);
    setBadge(row.cells[1], e.state);
  }, "No server is known yet.");
}

/* Their sums are above; one alone is the sum. */
function showUpstreams(upstreams = []) {
  $("upstreams-card").hidden = upstreams.length < 2;
  syncRows($("upstreams-rows"), upstreams, (u) => u.name,
    () => rowOf("text", "", "num", "num", "num", "num", "num", "num"), (row, u) => {
      const { up, ejected } = u.addresses;
      setCells(row, [u.name, row.cells[1].textContent, u.pool.active, u.pool.size, u.pool.idle,
        u.queue.waiting + u.queue.waiting_for_session, u.queue.size, `${up} of ${up + ejected}`]);
      setBadge(row.cells[1], u.queue.paused ? "paused" : up === 0 && ejected > 0 ? "ejected" : "up");
    }, "None.");
}

function showErrors({ errors }) {
  const key = (e) => [e.reason, e.exchange, e.client, Math.round(e.time_ms / 100)].join(" ");
  syncRows($("errors-rows"), errors, key,
    () => rowOf("num", "", "num", "num", "num", "text", "text", "wide"),
    (row, e) => setCells(row, [millis(e.age_ms), e.reason, e.status, e.code, e.times, e.user, e.query_id, e.detail]),
    "None since the start.");
}

/* ---- what may be done ---- */

function showRights({ rights, denied }) {
  const kill = rights?.commands.find((c) => c.path.endsWith("/kill"));
  const may = kill?.allowed === true;
  for (const node of document.querySelectorAll(".needs-read"))
    node.hidden = denied !== null;
  const why = `Requests cannot be killed from here. Allowed by: ${kill?.allowed_by ?? "another address"}.`;
  $("kill-note").hidden = may || denied !== null;
  setText($("kill-note"), why);
  setText($("rights"), denied ? "You may see health and metrics."
    : may ? "You may look, and kill requests." : "You may look, but not change anything.");
  return may;
}

function toast(text) {
  setText($("toast"), text);
  $("toast").classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => $("toast").classList.remove("shown"), 8000);
}

function confirmKill(exchange) {
  const dialog = $("confirm");
  $("confirm-text").textContent = `Request ${nameOf(exchange)}.`;
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "kill")
      return;
    try {
      const done = await ask(`/api/v1/kill?id=${encodeURIComponent(exchange.id)}`, "POST");
      toast(`Request ${exchange.id}: ${done.message}.`);
    } catch (error) {
      toast(`Request ${exchange.id} was not killed: ${error.message}${error.allowedBy ? ` (${error.allowedBy})` : ""}.`);
    }
  };
  dialog.showModal();
}

/* ---- the loop ---- */

const history = new History();
const plots = makePlots();
let frozen = false, timer = 0, asking = false;

const every = () => Number($("every").value) * 1000;
const range = () => Number($("range").value) * 1000;

function drawPlots() {
  const now = history.samples.at(-1)?.t ?? performance.now();
  for (const plot of plots)
    plot.draw(history.samples.filter((one) => now - one.t <= range()), now, range());
}

function show(all) {
  const restarted = history.add(all.status, performance.now(), KEEP_MS, every() * 3 + 2000);
  if (restarted)
    toast("chmuxd was restarted: the plots begin again.");
  showState(all.status.state);
  showNumbers(all.status, history.samples.at(-1));
  showBanners(bannersOf(all));
  showUpstreams(all.status.upstreams);
  const mayKill = showRights(all);
  if (!all.denied) {
    showRequests(all.exchanges, mayKill);
    showServers(all.endpoints);
    showErrors(all.errors);
  }
  if (!document.hidden)
    drawPlots();
}

async function tick() {
  clearTimeout(timer);
  if (asking || frozen)
    return;
  asking = true;
  const all = await askAll().catch((error) => ({ error }));
  asking = false;
  timer = setTimeout(tick, every());
  if (all.error) {
    showState("no answer");
    showBanners([{ kind: "bad", title: "chmuxd does not answer.",
      detail: `${all.error.message}. What is shown is old; this page keeps asking.` }]);
  } else {
    show(all);
  }
  document.body.dataset.ticks = Number(document.body.dataset.ticks ?? 0) + 1;
}

/* The settings live behind the '#', so that a bookmark keeps them. */
function loadSettings() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const id of ["range", "every"])
    if ([...$(id).options].some((option) => option.value === wanted.get(id)))
      $(id).value = wanted.get(id);
}

$("settings").addEventListener("change", () => {
  window.history.replaceState(null, "", `#range=${$("range").value}&every=${$("every").value}`);
  drawPlots();
  tick();
});
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("freeze").addEventListener("click", () => {
  frozen = !frozen;
  $("freeze").setAttribute("aria-pressed", String(frozen));
  tick();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden)
    tick();
});
loadSettings();
tick();
