"use strict";
// The leaderboard and its cells. All text goes in as text, never as markup.
(() => {
  const BATCH = 100;
  const { places, pool, questions } = JSON.parse(document.getElementById("data").textContent);
  const byId = new Map(places.map((place) => [place.id, place]));
  const table = document.getElementById("cells");
  const form = document.getElementById("filters");
  const dialog = document.getElementById("cell");
  const more = document.getElementById("more");

  // An element with attributes and children; a child is an element or a text.
  function el(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }
  const told = (text) => el("bdi", {}, text);
  const address = (place) => "#cell=" + encodeURIComponent(place.id);

  // ---- the table ----
  const difference = (place) => (place.donor ? place.donor[0] : null);
  const verdict = (place) => (place.paper ? place.paper[2] : "");
  const COLUMNS = [
    { head: "row", of: (p) => p.r, cell: named, row: true },
    { head: "family", key: "f", of: (p) => p.f, less: true },
    { head: "backbone", key: "b", of: (p) => p.b, less: true },
    { head: "task", key: "t", of: (p) => p.t, less: true },
    { head: "condition", key: "c", of: (p) => p.c, less: true },
    { head: "arm", key: "a", of: (p) => p.a, less: true },
    { head: "score", of: (p) => (p.s ? p.s[0] : null), cell: score, number: true },
    { head: "95% interval", of: (p) => (p.s && p.s[1] !== null ? p.s[2] - p.s[1] : null), cell: drawn, wide: true },
    { head: "n", of: (p) => p.n ?? null, number: true, less: true },
    { head: "clusters", of: (p) => p.k ?? null, number: true, less: true },
    { head: "own − donor", of: difference, cell: (p) => numbered(p.donor), number: true, if: places.some((p) => p.donor) },
    { head: "own − mean", of: (p) => (p.mean ? p.mean[0] : null), cell: (p) => numbered(p.mean), number: true, if: places.some((p) => p.mean) },
    { head: "paper", of: (p) => (p.paper ? p.paper[0] : null), cell: (p) => (p.paper ? p.paper[1] : ""), number: true, if: places.some((p) => p.paper) },
    { head: "verdict", of: verdict, cell: (p) => (p.paper ? el("span", { title: p.paper[3] }, p.paper[2]) : ""), if: places.some((p) => p.paper) },
  ].filter((column) => column.if !== false);
  let visible = COLUMNS;
  let sorted = { column: null, down: false };
  let shown = [];
  let written = 0;

  function numbered(estimate) {
    if (!estimate) return "";
    return el("span", {}, estimate[3], estimate[4] ? el("span", { class: "ends" }, " " + estimate[4]) : "");
  }
  // The row's name, and below it on a small screen what other columns say on a wide one.
  function named(place) {
    const beside = ["b", "t", "c", "a"].filter((key) => several(key)).map((key) => place[key]);
    return el("span", {}, el("a", { href: address(place) }, place.r), el("span", { class: "beside" }, beside.join(", ")));
  }
  function score(place) {
    if (!place.s) return el("span", { class: "silent", title: place.reason || "" }, place.status || "");
    return el("span", {}, place.s[3], place.lost ? el("span", { class: "ends" }, ` (${place.lost} failed)`) : "");
  }
  // The interval as text and, for the eye, as a line from 0 to 100.
  function drawn(place) {
    if (!place.s) return "";
    const [value, low, high, , text] = place.s;
    const line = el("span", { class: "line", "aria-hidden": "true" });
    if (low !== null) {
      const reach = el("i");
      reach.style.left = low + "%";
      reach.style.width = Math.max(high - low, 0.5) + "%";
      line.append(reach);
    }
    const dot = el("b");
    dot.style.left = value + "%";
    line.append(dot);
    return el("span", { class: "interval" }, line, el("span", { class: "ends" }, text));
  }

  function heads() {
    for (const column of COLUMNS) {
      const button = el("button", { type: "button" }, column.head, el("span", { class: "mark", "aria-hidden": "true" }));
      button.addEventListener("click", () => sortBy(column));
      column.th = el("th", { scope: "col", class: classes(column), "aria-sort": "none" }, button);
    }
  }
  // A column in which every cell would say the same is no column.
  function several(key) {
    return !form.elements[key].value && form.elements[key].options.length > 2;
  }
  const classes = (column) => [column.number && "number", column.less && "less", column.wide && "wide"].filter(Boolean).join(" ") || null;

  function sortBy(column) {
    const numeric = column.number || column.wide;
    const down = sorted.column === column ? !sorted.down : Boolean(numeric);
    sorted = { column, down };
    for (const other of COLUMNS) {
      other.th.setAttribute("aria-sort", other !== column ? "none" : down ? "descending" : "ascending");
    }
    refresh();
  }
  function order(list) {
    const { column, down } = sorted;
    if (!column) return list;
    const sign = down ? -1 : 1;
    const empty = (value) => value === null || value === "";
    return list
      .map((place) => [column.of(place), place])
      .sort(([a], [b]) => {
        if (empty(a) || empty(b)) return empty(a) - empty(b); // what did not run stands last either way
        return sign * (a < b ? -1 : a > b ? 1 : 0);
      })
      .map(([, place]) => place);
  }

  function options() {
    for (const key of ["f", "b", "t", "c", "a"]) {
      const select = form.elements[key];
      const values = [...new Set(places.map((place) => place[key]))];
      select.append(el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, value)));
      if (values.length < 2) select.parentElement.hidden = true;
    }
    if (places.some((place) => place.a === "own")) form.elements.a.value = "own";
  }
  function chosen() {
    const wanted = ["f", "b", "t", "c", "a"].map((key) => [key, form.elements[key].value]).filter(([, value]) => value);
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    return places.filter((place) => {
      if (!wanted.every(([key, value]) => place[key] === value)) return false;
      const text = words.length ? `${place.id} ${place.f} ${verdict(place)} ${place.status || ""}`.toLowerCase() : "";
      return words.every((word) => text.includes(word));
    });
  }

  function refresh() {
    shown = order(chosen());
    written = 0;
    visible = COLUMNS.filter((column) => !column.key || several(column.key));
    const focused = document.activeElement;
    table.tHead.rows[0].replaceChildren(...visible.map((column) => column.th));
    if (table.tHead.contains(focused)) focused.focus(); // moving an element takes its focus away
    table.tBodies[0].replaceChildren();
    append();
    const cells = `${shown.length.toLocaleString("en")} of ${places.length.toLocaleString("en")} cells`;
    document.getElementById("count").textContent = shown.length ? cells : `${cells}: no cell is like this`;
  }
  function append(count = BATCH) {
    const lines = document.createDocumentFragment();
    for (const place of shown.slice(written, written + count)) {
      const line = el("tr");
      for (const column of visible) {
        const content = column.cell ? column.cell(place) : String(column.of(place) ?? "");
        line.append(el(column.row ? "th" : "td", { scope: column.row ? "row" : null, class: classes(column) }, content));
      }
      lines.append(line);
    }
    table.tBodies[0].append(lines);
    written = Math.min(written + count, shown.length);
    more.hidden = written >= shown.length;
    more.textContent = `Show more (${(shown.length - written).toLocaleString("en")} left)`;
  }

  // ---- a cell ----
  const titled = (level, text) => el(level, {}, text);
  function list(pairs) {
    return el("dl", { class: "notes" }, ...pairs.map(([name, fact]) => el("div", {}, el("dt", {}, name), el("dd", {}, told(fact)))));
  }
  function grid(caption, columns, rows, from) {
    const kind = (n) => (n >= from ? "number" : null);
    const line = (row) => el("tr", {}, ...row.map((text, n) => (n ? el("td", { class: kind(n) }, told(String(text))) : el("th", { scope: "row" }, told(String(text))))));
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      el("table", {}, el("caption", {}, caption),
        el("thead", {}, el("tr", {}, ...columns.map((head, n) => el("th", { scope: "col", class: kind(n) }, head)))),
        el("tbody", {}, ...rows.map(line))));
  }
  const folded = (summary, open, ...parts) => el("details", { open }, el("summary", {}, summary), ...parts);

  function sample(place, found, row, n) {
    const [question, gold] = ((questions[place.t] || {})[row.h] || {})[row.q] || [];
    const facts = [];
    if (question !== undefined) facts.push(["question", question], ["gold", gold]);
    if (row.a !== undefined) facts.push(["answer", row.a === "" ? "(empty)" : row.a]);
    if (row.cap) facts.push(["cut", `at the cap of ${row.n} tokens`]);
    if (row.d) facts.push(["memory of", row.d]);
    for (const [name, text] of row.m || []) facts.push([name.replaceAll("_", " "), text]);
    const scores = found.metrics.map((metric, m) => `${metric} ${row.s[m]}`).join(", ");
    return el("article", { class: "sample", "aria-label": `Sample ${n + 1}` },
      el("h5", {}, told(row.q), el("span", { class: "ends" }, row.g ? ` ${row.g}` : ""), el("span", { class: "score" }, scores)),
      facts.length ? list(facts) : null);
  }
  function samples(place, found) {
    if (!found) return [];
    const parts = [titled("h4", "Samples")];
    const draws = found.draws > 1 ? `, of the first of ${found.draws} draws` : "";
    parts.push(el("p", { class: "small" }, `${found.rows.length} of ${found.of} questions${draws}. ${found.why || ""} ${found.credit || ""}`,
      found.why || found.stored ? "" : "Answers are not stored with this record."));
    parts.push(...found.rows.map((row, n) => sample(place, found, row, n)));
    return parts;
  }
  function record(place, seed) {
    const primary = seed.scores.filter(([name]) => !name.includes("/"));
    const wide = seed.scores.filter(([name]) => name.includes("/"));
    const columns = ["metric", "rule", "percent", "95% interval", "questions", "clusters"];
    const gates = pool[seed.gates];
    const warned = gates.filter(([, status]) => status === "warn").length;
    const parts = [];
    if (seed.warnings.length) parts.push(titled("h4", "Warnings"), el("ul", { class: "said" }, ...seed.warnings.map((text) => el("li", {}, told(text)))));
    if (seed.failures.length) parts.push(titled("h4", "Without an answer"), el("ul", { class: "said" }, ...seed.failures.map(([text, n]) => el("li", {}, told(`${n}: ${text}`)))));
    if (primary.length) parts.push(titled("h4", "Scores"), grid("Every metric", columns, primary, 2));
    if (wide.length) parts.push(folded(`${wide.length} scores by category`, wide.length < 13, grid("By category", columns, wide, 2)));
    parts.push(...samples(place, seed.samples));
    if (gates.length) parts.push(titled("h4", "Gates"), folded(`${gates.length - warned} passed, ${warned} warned`, warned > 0, grid("Gates", ["gate", "status", "measured", "limit", "note"], gates, 2)));
    if (seed.costs.length) parts.push(titled("h4", "Costs"), folded("What the cell cost", false, list(seed.costs)));
    parts.push(titled("h4", "Provenance"), folded("What ran, and from what", false,
      list([...(seed.path ? [["record", seed.path]] : []), ...(seed.address ? [["address", seed.address]] : []), ...pool[seed.ran]]),
      titled("h5", "Data"), list(pool[seed.data]), ...(pool[seed.fit].length ? [titled("h5", "Fit"), list(pool[seed.fit])] : [])));
    return parts;
  }
  function headline(place) {
    const facts = [];
    if (place.s) facts.push([place.metric, `${place.s[3]} ${place.s[4]}`.trim()], ["questions", `${place.n} in ${place.k} clusters`]);
    else facts.push([place.status, place.reason || "no reason is told"]);
    if (place.donor) facts.push(["own − donor", `${place.donor[3]} ${place.donor[4]}`.trim()]);
    if (place.mean) facts.push(["own − mean", `${place.mean[3]} ${place.mean[4]}`.trim()]);
    if (place.paper) facts.push(["paper", `${place.paper[1]}: ${place.paper[2]} (${place.paper[3]})`]);
    return el("dl", { class: "facts" }, ...facts.map(([name, fact]) => el("div", {}, el("dt", {}, name), el("dd", {}, told(fact)))));
  }
  function step(place, by) {
    const at = shown.indexOf(place);
    return at < 0 ? null : shown[at + by];
  }
  function open(place) {
    const walk = (by, text) => {
      const to = step(place, by);
      return to ? el("a", { class: "button", href: address(to) }, text) : null;
    };
    const close = el("button", { type: "button" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const seeds = place.seeds.flatMap((seed) => (place.seeds.length > 1 ? [titled("h3", `Seed ${seed.seed}`), ...record(place, seed)] : record(place, seed)));
    dialog.replaceChildren(
      el("div", { class: "bar" }, walk(-1, "Previous"), walk(1, "Next"), close),
      el("p", { class: "eyebrow" }, `${place.b} · ${place.f}`),
      el("h3", { id: "cell-title", tabindex: "-1" }, told(place.r)),
      el("p", { class: "lead" }, `${place.t}, ${place.c}, ${place.a}`),
      headline(place), ...seeds);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    document.getElementById("cell-title").focus();
    current = place;
  }
  let current = null;
  function follow() {
    const [, id] = location.hash.match(/^#cell=(.*)$/) || [];
    let place = null;
    try {
      place = id === undefined ? null : byId.get(decodeURIComponent(id));
    } catch { /* a link that somebody cut: no cell */ }
    if (place) open(place);
    else if (dialog.open) dialog.close();
  }
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#cell=")) history.replaceState(null, "", location.pathname + location.search);
    const link = current && [...table.querySelectorAll("tbody a")].find((a) => a.getAttribute("href") === address(current));
    (link || document.getElementById("main")).focus();
    current = null;
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });

  // ---- begin ----
  heads();
  options();
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(refresh));
  more.addEventListener("click", () => {
    const at = written;
    append(10 * BATCH);
    table.tBodies[0].rows[at].querySelector("a").focus();
  });
  window.addEventListener("hashchange", follow);
  window.addEventListener("beforeprint", () => {
    append(shown.length);
    for (const part of document.querySelectorAll("main details")) part.open = true;
  });
  document.getElementById("board").hidden = false;
  refresh();
  follow();
  document.documentElement.dataset.ready = "";
})();
