/* One plot over time: an SVG, its legend with the values, and a cursor that all plots share. */

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 20, HEIGHT = 168;

function svg(name, attributes = {}, parent = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes))
    node.setAttribute(key, value);
  parent?.append(node);
  return node;
}

function html(name, className, parent, text = "") {
  const node = document.createElement(name);
  if (className)
    node.className = className;
  node.textContent = text;
  parent.append(node);
  return node;
}

/* The ticks from 0 to at least max, three or four of them, at round numbers. */
function linearTicks(max, whole, base) {
  let unit = 1;
  while (base > 10 && max / unit >= base)
    unit *= base; /* bytes: round in KiB, MiB */
  const rough = Math.max(max / unit, 1) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find((n) => n * power >= rough) * power;
  if (whole)
    step = Math.max(1, step);
  const ticks = [];
  for (let i = 0; i === 0 || ticks[i - 1] < max; i++)
    ticks.push(i * step * unit);
  return ticks;
}

/* Powers of ten around what is there. */
function logTicks(min, max) {
  const low = Math.floor(Math.log10(min)), high = Math.max(low + 1, Math.ceil(Math.log10(max)));
  return Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
}

/* All plots show the same moment: the one pointed at in any of them. */
const plots = [];
let cursorTime = null;

function moveCursor(time) {
  cursorTime = time;
  for (const plot of plots)
    plot.paint();
}

export class Plot {
  /* options: title, hint, series [{key, label, tone, dash}], format, stacked, log, whole, base, cap */
  constructor(parent, options) {
    this.options = options;
    this.samples = [];
    this.now = 0;
    this.range = 60000;
    this.figure = html("figure", "", parent);
    const caption = html("figcaption", "", this.figure);
    html("span", "", caption, options.title);
    this.when = html("span", "dim", caption, options.hint ?? "");
    this.values = this.#legend();
    this.svg = svg("svg", {
      class: "plot", role: "slider", tabindex: 0, "aria-label": `${options.title}, read at a time`,
      "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0, "aria-orientation": "horizontal",
    }, this.figure);
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => moveCursor(null));
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    this.svg.addEventListener("focus", () => this.#speak());
    this.svg.addEventListener("blur", () => moveCursor(null));
    this.width = 400;
    new ResizeObserver((entries) => {
      this.width = Math.max(160, entries[0].contentRect.width);
      this.paint();
    }).observe(this.svg);
    plots.push(this);
  }

  /* samples: oldest first, each with a time `t` in ms; now and range in ms. */
  draw(samples, now, range) {
    this.samples = samples;
    this.now = now;
    this.range = range;
    this.paint();
  }

  #legend() {
    const list = html("ul", "legend", this.figure);
    return this.options.series.map((one) => {
      const item = html("li", "", list);
      const mark = svg("svg", { width: 16, height: 8, class: `tone-${one.tone}`, "aria-hidden": "true" }, item);
      svg("path", { class: `tone-line dash-${one.dash ?? 0}`, d: "M0 4H16" }, mark);
      html("span", "", item, one.label);
      const value = html("b", "", item, "–");
      value.dataset.series = one.key;
      return value;
    });
  }

  #indexAt(time) {
    let best = -1;
    for (let i = 0; i < this.samples.length; i++)
      if (best < 0 || Math.abs(this.samples[i].t - time) < Math.abs(this.samples[best].t - time))
        best = i;
    return best;
  }

  #point(event) {
    const inner = this.width - LEFT - RIGHT;
    const x = event.clientX - this.svg.getBoundingClientRect().left - LEFT;
    moveCursor(this.now - this.range * (1 - Math.min(1, Math.max(0, x / inner))));
  }

  #key(event) {
    const jump = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape")
      moveCursor(null);
    if (jump === undefined || this.samples.length === 0)
      return;
    event.preventDefault();
    const at = cursorTime === null ? this.samples.length - 1 : this.#indexAt(cursorTime);
    const to = Math.min(this.samples.length - 1, Math.max(0, at + jump));
    moveCursor(this.samples[to].t);
    this.#speak();
  }

  /* Only when somebody moves: a screen reader must not read out every second. */
  #speak() {
    const index = cursorTime === null ? this.samples.length - 1 : this.#indexAt(cursorTime);
    if (index < 0)
      return;
    const sample = this.samples[index], ago = Math.round((this.now - sample.t) / 1000);
    const parts = this.options.series.map((one) => `${one.label} ${this.#text(sample[one.key])}`);
    this.svg.setAttribute("aria-valuemin", -Math.round(this.range / 1000));
    this.svg.setAttribute("aria-valuenow", -ago);
    this.svg.setAttribute("aria-valuetext", `${ago === 0 ? "now" : `${ago} seconds ago`}: ${parts.join(", ")}`);
  }

  #text(value) {
    return value === null || value === undefined ? "–" : this.options.format(value);
  }

  /* Values of each series at each sample, summed up where they are stacked. */
  #levels() {
    const { series, stacked } = this.options;
    return this.samples.map((sample) => {
      let sum = 0;
      return series.map((one) => {
        const value = sample[one.key];
        if (value === null || value === undefined)
          return null;
        sum += value;
        return stacked ? sum : value;
      });
    });
  }

  #scale(levels) {
    const { log, whole, base, cap } = this.options;
    const all = levels.flat().filter((v) => v !== null);
    const last = this.samples.at(-1), bound = cap && last ? last[cap] ?? 0 : 0;
    const high = HEIGHT - BOTTOM;
    if (!log) {
      const ticks = linearTicks(Math.max(base ?? 1, bound, ...all), whole, base ?? 10);
      const top = Math.max(ticks.at(-1), 1e-9);
      return { ticks, y: (v) => high - (v / top) * (high - TOP) };
    }
    const positive = all.filter((v) => v > 0);
    const ticks = positive.length ? logTicks(Math.min(...positive), Math.max(...positive)) : [0.1, 1, 10];
    const from = Math.log10(ticks[0]), span = Math.log10(ticks.at(-1)) - from;
    const part = (v) => Math.max(0, (Math.log10(Math.max(v, ticks[0])) - from) / span);
    return { ticks, y: (v) => high - part(v) * (high - TOP) };
  }

  paint() {
    const inner = this.width - LEFT - RIGHT, high = HEIGHT - BOTTOM, { options } = this;
    const levels = this.#levels(), { ticks, y } = this.#scale(levels);
    const x = (t) => LEFT + inner * (1 - (this.now - t) / this.range);
    const drawing = svg("g");
    for (const tick of ticks) {
      svg("path", { class: "grid", d: `M${LEFT} ${y(tick).toFixed(1)}H${this.width - RIGHT}` }, drawing);
      const label = svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, drawing);
      label.textContent = options.format(tick, true);
    }
    this.#timeAxis(drawing, x);
    /* The top of a stack first: the lower ones are drawn over it. */
    const order = options.series.map((_, i) => i);
    for (const i of options.stacked ? order.reverse() : order)
      this.#series(drawing, i, levels, x, y);
    this.#capLine(drawing, y);
    const empty = this.samples.length < 2 ? "collecting"
      : levels.flat().every((v) => v === null) ? "nothing in this time" : "";
    if (empty)
      svg("text", { class: "none", x: LEFT + inner / 2, y: high / 2 }, drawing).textContent = empty;
    this.#cursor(drawing, levels, x, y);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.replaceChildren(drawing);
  }

  #timeAxis(drawing, x) {
    const seconds = this.range / 1000, fine = seconds <= 60 ? 15 : seconds <= 300 ? 60 : 180;
    const step = this.width < 340 ? seconds / 2 : fine;
    for (let ago = 0; ago <= seconds; ago += step) {
      const at = x(this.now - ago * 1000);
      const anchor = ago === 0 ? "end" : ago === seconds ? "start" : "middle";
      const label = svg("text", { x: at, y: HEIGHT - 5, "text-anchor": anchor }, drawing);
      label.textContent = ago === 0 ? "now" : ago < 60 ? `−${ago} s` : `−${Number((ago / 60).toFixed(1))} min`;
    }
  }

  /* Lines end where values are missing, and where nobody looked for a while. */
  #series(drawing, index, levels, x, y) {
    const { series, stacked } = this.options, one = series[index];
    const group = svg("g", { class: `tone-${one.tone}` }, drawing);
    const runs = [];
    let run = null, before = null;
    this.samples.forEach((sample, i) => {
      const value = levels[i][index];
      if (value === null || (before !== null && sample.t - before > sample.gap))
        run = null;
      before = sample.t;
      if (value === null)
        return;
      if (run === null)
        runs.push(run = []);
      run.push({ x: x(sample.t), y: y(value), low: y(stacked && index > 0 ? levels[i][index - 1] ?? 0 : 0) });
    });
    for (const points of runs) {
      const line = points.map((p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("L");
      if (points.length === 1) {
        svg("circle", { class: "tone-dot", cx: points[0].x, cy: points[0].y, r: 1.6 }, group);
        continue;
      }
      if (stacked || this.options.area) {
        const back = points.toReversed().map((p) => `${p.x.toFixed(1)} ${p.low.toFixed(1)}`).join("L");
        svg("path", { class: "tone-area", d: `M${line}L${back}Z` }, group);
      }
      svg("path", { class: `tone-line dash-${one.dash ?? 0}`, d: `M${line}` }, group);
    }
  }

  #capLine(drawing, y) {
    const { cap } = this.options, last = this.samples.at(-1);
    if (!cap || !last?.[cap])
      return;
    const at = y(last[cap]);
    svg("path", { class: "cap", d: `M${LEFT} ${at}H${this.width - RIGHT}` }, drawing);
    const label = svg("text", { x: LEFT + 4, y: at + 13 }, drawing);
    label.textContent = `cap ${last[cap]}`;
  }

  #cursor(drawing, levels, x, y) {
    const index = cursorTime === null ? this.samples.length - 1 : this.#indexAt(cursorTime);
    const sample = this.samples[index];
    this.options.series.forEach((one, i) => {
      this.values[i].textContent = sample ? this.#text(sample[one.key]) : "–";
    });
    const ago = sample ? Math.round((this.now - sample.t) / 1000) : 0;
    this.when.textContent = cursorTime === null || !sample ? this.options.hint ?? "" : `${ago} s ago`;
    if (cursorTime === null || !sample)
      return;
    const at = x(sample.t).toFixed(1);
    svg("path", { class: "cursor", d: `M${at} ${TOP}V${HEIGHT - BOTTOM}` }, drawing);
    this.options.series.forEach((one, i) => {
      if (levels[index][i] === null)
        return;
      const group = svg("g", { class: `tone-${one.tone}` }, drawing);
      svg("circle", { class: "tone-dot", cx: at, cy: y(levels[index][i]), r: 3 }, group);
    });
  }
}
