// The status page: draws each snapshot that comes by server-sent events.
//
// Rules:
// - Names and errors come from outside: they are written as text, never as markup.
// - What a reader has opened, focused or scrolled stays: elements are kept by key and only changed.
// - What changes each second is silent; a way out that goes or comes, and a failover, are said (role=status).

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300, HEIGHT = 60;
const STATES = {
  up: ["●", "up"],
  down: ["■", "down"],
  "half-open": ["◐", "being tried"],
  unknown: ["○", "not tried yet"],
};
const NAMES = { here: "resolved here", far: "resolved at the far end", none: "" };

// --- small things -------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function put(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Children of `parent` for `items`, in their order; a child stays the same element as long as its key is there. */
function keep(parent, items, key, create, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = before.get(name);
    if (child === undefined) {
      child = create(item);
      child.dataset.key = name;
    }
    before.delete(name);
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const gone of before.values()) gone.remove();
}

const count = new Intl.NumberFormat("en");

function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "KB", "MB", "GB"]) {
    if (value < 1000) return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}

const rate = (bytes) => `${size(bytes)}/s`;

function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10000) return `${Math.round(value / 1000)} s`;
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function ago(ts, now) {
  const seconds = (Date.parse(now) - Date.parse(ts)) / 1000;
  return seconds < 5 ? "just now" : `${span(seconds)} ago`;
}

// --- charts -------------------------------------------------------------------------------------

function chart(title) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const most = make("span", {});
  const figure = make(
    "figure",
    { class: "chart" },
    make("figcaption", {}, make("span", {}, title), most),
    svg,
    make("div", { class: "axis", "aria-hidden": "true" }, make("span", {}, "60 min ago"), make("span", {}, "now")),
  );
  return { figure, svg, most };
}

const STEP = WIDTH / 60;

function drawLatency(parts, hour) {
  const values = hour.latency;
  const known = values.filter((v) => v !== null);
  const top = Math.max(...known, 1) * 1.15;
  const y = (v) => (HEIGHT - 4 - (v / top) * (HEIGHT - 8)).toFixed(1);
  const drawn = [];
  let run = [];
  const flush = () => {
    if (run.length === 0) return;
    const points = run.length === 1 ? [[run[0][0] - 1.5, run[0][1]], [run[0][0] + 1.5, run[0][1]]] : run;
    const path = points.map(([x, v], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y(v)}`).join("");
    const [from, to] = [points[0][0].toFixed(1), points[points.length - 1][0].toFixed(1)];
    drawn.push(shape("path", { class: "area", d: `${path}L${to} ${HEIGHT}L${from} ${HEIGHT}Z` }));
    drawn.push(shape("path", { class: "line", d: path }));
    run = [];
  };
  values.forEach((v, i) => (v === null ? flush() : run.push([(i + 0.5) * STEP, v])));
  flush();
  hour.failures.forEach((n, i) => {
    if (n > 0) drawn.push(shape("rect", { class: "fault", x: (i * STEP + 1).toFixed(1), y: HEIGHT - 6, width: STEP - 2, height: 6 }));
  });
  parts.svg.replaceChildren(...drawn);
  const failed = hour.failures.reduce((a, b) => a + b, 0);
  const words = known.length === 0 ? "not measured" : `${ms(Math.min(...known))} to ${ms(Math.max(...known))}`;
  const faults = failed ? `${count.format(failed)} failed` : "";
  say(parts.most, [words, faults].filter(Boolean).join(" · "));
  put(parts.svg, "aria-label", `Latency over the last hour: ${words}${failed ? `; ${count.format(failed)} dials failed` : ""}`);
}

function drawBytes(parts, hour) {
  const top = Math.max(...hour.bytes, 1);
  const drawn = [];
  hour.bytes.forEach((n, i) => {
    if (n === 0) return;
    const height = Math.max(1, (n / top) * (HEIGHT - 6));
    drawn.push(shape("rect", { class: "bar", x: (i * STEP + 0.5).toFixed(1), y: (HEIGHT - height).toFixed(1), width: STEP - 1, height: height.toFixed(1) }));
  });
  parts.svg.replaceChildren(...drawn);
  const total = hour.bytes.reduce((a, b) => a + b, 0);
  const words = total ? `${size(total)}, at most ${rate(top / 60)}` : "nothing carried";
  say(parts.most, words);
  put(parts.svg, "aria-label", `Throughput over the last hour: ${words}`);
}

// --- the parts of the page ----------------------------------------------------------------------

const drawings = new WeakMap();

function newWay(way) {
  const figures = make("dl", { class: "figures" });
  const values = {};
  for (const [key, label] of [["latency", "Latency"], ["streams", "Streams"], ["rate", "Receiving"], ["in", "Received"], ["out", "Sent"]]) {
    values[key] = make("dd");
    figures.append(make("div", {}, make("dt", {}, label), values[key]));
  }
  const parts = {
    title: make("h3"), pill: make("span", { class: "pill" }), 
    chain: make("ol", { class: "chain", "aria-label": "Hops, outermost first" }), notes: make("p", { class: "soft" }),
    why: make("p", { class: "why" }), values, latency: chart("Latency"), bytes: chart("Throughput"),
  };
  const card = make(
    "article", { class: "way", role: "listitem" },
    make("div", { class: "way-head" }, parts.title, parts.pill), parts.chain, parts.notes, parts.why, figures,
    make("div", { class: "charts" }, parts.latency.figure, parts.bytes.figure),
  );
  drawings.set(card, parts);
  return card;
}

function updateWay(card, way) {
  const parts = drawings.get(card);
  const [sign, word] = STATES[way.state] ?? STATES.unknown;
  put(card, "data-state", way.state);
  put(card, "aria-label", `${way.name}: ${word}`);
  put(parts.pill, "data-state", way.state);
  say(parts.title, way.name);
  say(parts.pill, `${sign} ${word}`);
  const hops = way.chain === way.name ? [] : way.chain.split(",").filter(Boolean);
  keep(parts.chain, hops.map((hop, i) => [i, hop]), ([i]) => String(i), () => make("li"), (li, [, hop]) => say(li, hop));
  parts.chain.hidden = hops.length === 0;
  const notes = [NAMES[way.names] && `names ${NAMES[way.names]}`, way.links > 1 ? `${way.links} connections` : ""];
  say(parts.notes, notes.filter(Boolean).join(" · "));
  const broken = way.state !== "up" && way.last_error;
  parts.why.hidden = !broken;
  say(parts.why, broken ? `${way.last_error.finding}: ${way.last_error.detail}` : "");
  say(parts.values.latency, ms(way.latency_ms));
  say(parts.values.streams, count.format(way.streams));
  say(parts.values.rate, rate(way.rate_in));
  say(parts.values.in, size(way.bytes_in));
  say(parts.values.out, size(way.bytes_out));
  const hour = JSON.stringify(way.hour);
  if (parts.hour !== hour) {
    parts.hour = hour;
    drawLatency(parts.latency, way.hour);
    drawBytes(parts.bytes, way.hour);
  }
}

function newFailure(failure) {
  const parts = {
    finding: make("span", { class: "finding" }), when: make("time", { class: "when" }),
    subject: make("span", { class: "subject" }), summary: make("p"), detail: make("p", { class: "mono" }),
    title: make("p", { class: "fixes-title" }, "What mends it"), fixes: make("ul", { class: "fixes" }),
  };
  const item = make(
    "li", {},
    make("details", {}, make("summary", {}, parts.finding, parts.when, parts.subject),
      make("div", { class: "body" }, parts.summary, parts.detail, parts.title, parts.fixes)),
  );
  drawings.set(item, parts);
  return item;
}

function updateFailure(item, failure, now) {
  const parts = drawings.get(item);
  say(parts.finding, failure.finding + (failure.count > 1 ? ` × ${count.format(failure.count)}` : ""));
  say(parts.when, ago(failure.ts, now));
  put(parts.when, "datetime", failure.ts);
  say(parts.subject, failure.subject + (failure.via && failure.via !== failure.subject ? ` by ${failure.via}` : ""));
  say(parts.summary, failure.summary);
  say(parts.detail, failure.detail);
  parts.title.hidden = failure.fix.length === 0;
  keep(parts.fixes, failure.fix, (line) => line, () => make("li", {}, make("code")), (li, line) => say(li.firstChild, line));
}

const SIGNALS = { request_rate: ["requests a second", ""], failure_rate: ["of dials fail", " %"] };

function alertWords(alert) {
  const [what, unit] = SIGNALS[alert.signal] ?? [alert.signal, ""];
  return `${alert.upstream}: ${alert.value}${unit} ${what}, usually ${alert.mean}${unit}`;
}

function lines(parent, items, words, now) {
  keep(
    parent, items, (item) => JSON.stringify({ ...item, ts: "", count: 0, value: 0, detail: "", target: "" }),
    () => make("li", {}, make("span"), make("br"), make("time", { class: "soft" })),
    (li, item) => {
      say(li.children[0], words(item));
      say(li.children[2], ago(item.ts, now));
      put(li.children[2], "datetime", item.ts);
    },
  );
}

function sources(list) {
  $("sources-region").hidden = list.length === 0;
  $("no-sources").hidden = list.length > 0;
  keep(
    $("sources"), list, (source) => source.name,
    () => make("tr", {}, make("th", { scope: "row" }), make("td", { class: "n" }), make("td", { class: "n" }), make("td", { class: "n" })),
    (row, source) => {
      const cells = [source.name, count.format(source.requests), count.format(source.failures), ms(source.ms_p50)];
      cells.forEach((text, i) => say(row.children[i], text));
    },
  );
}

// --- what is said -------------------------------------------------------------------------------

let before = null;

/** What a person should hear of: [kind, words] for what changed since the last snapshot. */
function changes(now) {
  if (before === null) return [];
  const said = [];
  const old = new Map(before.ways.map((way) => [way.name, way.state]));
  for (const way of now.ways) {
    if (old.get(way.name) === way.state) continue;
    if (way.state === "down") said.push(["bad", `${way.name} is down${way.last_error ? `: ${way.last_error.finding}` : ""}`]);
    else if (way.state === "up" && old.get(way.name) === "down") said.push(["good", `${way.name} works again`]);
    else if (way.state === "up" && old.get(way.name) === "half-open") said.push(["good", `${way.name} works again`]);
  }
  if (now.failovers.count > before.failovers.count && now.failovers.last.length) {
    const move = now.failovers.last[0];
    said.push(["warn", `now by ${move.to}, since ${move.from}: ${move.reason}`]);
  }
  if (now.alerts.length && now.alerts[0].ts !== before.alerts[0]?.ts) said.push(["warn", `alert: ${alertWords(now.alerts[0])}`]);
  return said;
}

function announce(said) {
  if (said.length === 0) return;
  put($("news"), "data-kind", said.some(([kind]) => kind === "bad") ? "bad" : said[said.length - 1][0]);
  say($("news"), `${said.map(([, words]) => words).join("; ")} (${new Date().toLocaleTimeString()})`);
}

// --- a snapshot ---------------------------------------------------------------------------------

function draw(now) {
  const up = now.ways.filter((way) => way.state === "up").length;
  document.title = now.ways.length && up === 0 ? "down – gotunnel" : `${up}/${now.ways.length} up – gotunnel`;
  say($("version"), `version ${now.version}`);
  say($("uptime"), `· up for ${span(now.uptime)}`);
  $("unready").hidden = now.ready !== false;
  say($("unready"), now.ready === false ? `Not ready: ${now.why || "no way out has been tried yet"}` : "");
  say($("t-up"), `${up} of ${now.ways.length}`);
  say($("t-streams"), count.format(now.streams));
  say($("t-runs"), count.format(now.runs));
  say($("t-rate"), rate(now.ways.reduce((sum, way) => sum + way.rate_in, 0)));
  const mod = now.modproxy;
  const ratio = mod.hit_ratio === null ? "–" : `${Math.round(mod.hit_ratio * 100)} %`;
  say($("t-hits"), ratio);
  say($("m-requests"), count.format(mod.requests));
  say($("m-hits"), mod.hit_ratio === null ? "–" : `${count.format(mod.hits)} (${ratio})`);
  say($("m-missing"), count.format(mod.missing));
  say($("m-bytes"), size(mod.bytes));
  $("m-store").hidden = !mod.store;
  if (mod.store) say($("m-store"), `store ${mod.store.url ?? ""}${mod.store.bytes ? `, ${size(mod.store.bytes)}` : ""}`);
  $("no-ways").hidden = now.ways.length > 0;
  keep($("way-list"), now.ways, (way) => way.name, newWay, updateWay);
  sources(mod.sources);
  $("no-failures").hidden = now.failures.length > 0;
  keep(
    $("failures"), now.failures, (f) => JSON.stringify([f.finding, f.subject, f.via]), newFailure,
    (item, failure) => updateFailure(item, failure, now.now),
  );
  $("no-moves").hidden = now.failovers.last.length > 0;
  say($("moves-count"), now.failovers.count ? count.format(now.failovers.count) : "");
  lines($("moves"), now.failovers.last, (m) => `${m.from} → ${m.to}: ${m.reason}${m.count > 1 ? ` × ${count.format(m.count)}` : ""}`, now.now);
  $("alerts-section").hidden = now.alerts.length === 0;
  lines($("alerts"), now.alerts, alertWords, now.now);
  announce(changes(now));
  before = now;
}

function live(state, words) {
  put($("live"), "data-state", state);
  say($("live-text"), words);
}

function follow() {
  const events = new EventSource("/events");
  events.addEventListener("snapshot", (event) => {
    draw(JSON.parse(event.data));
    live("live", "live");
  });
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CONNECTING) {
      live("lost", "connection lost, trying again");
      return;
    }
    // the service has gone for a while, or has another token
    live("lost", "no answer: is the service running? If it is, open the page with its token again");
    setTimeout(follow, 5000);
  });
}

follow();
