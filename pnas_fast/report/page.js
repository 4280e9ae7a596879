"use strict";
// The table of all trials, drawn in pieces, and what a dot of a figure tells. Only text is ever inserted.
// Whoever changes the page calls end, whose result is how people left the table, and explain with that.
const explain = (before) => {
  const source = document.getElementById("trial-data");
  if (!source) return {end: () => before};
  const ending = new AbortController(), until = {signal: ending.signal};
  const {columns, rows} = JSON.parse(source.textContent);
  const place = (kind) => columns.findIndex((column) => column.kind === kind);
  const accuracyAt = place("accuracy"), cellAt = place("cell"), numberAt = columns.length - 1;
  const FIRST = 20, PIECE = 100;

  // As report/text.py writes them.
  const count = (value) => Math.round(value).toLocaleString("en-US");
  const percent = (value, digits) => `${(100 * value).toFixed(digits)} %`;
  const two = (value) => String(value).padStart(2, "0");
  const writers = {
    count,
    plain: (value) => String(Number(value.toPrecision(5))),
    magnitude: (value) => {
      if (value < 1e5) return count(value);
      const [scaled, unit] = value >= 1e9 ? [value / 1e9, "B"] : [value / 1e6, "M"];
      const digits = scaled < 10 ? 2 : 1;
      return `${scaled.toLocaleString("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits})} ${unit}`;
    },
    duration: (value) => {
      if (value < 59.95) return `${value.toFixed(1)} s`;
      const seconds = Math.round(value), minutes = Math.round(value / 60), hours = Math.round(value / 3600);
      if (value < 3599.5) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
      if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
      return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
    },
    cell: (value) => value,
    accuracy: ([value, error, failure]) => {
      if (failure !== null) return "failed";
      if (value === null) return "–";
      return error === null ? percent(value, 2) : `${(100 * value).toFixed(2)} ± ${percent(error, 2)}`;
    },
  };
  const written = (row, at) => (row[at] === null ? "–" : writers[columns[at].kind](row[at]));

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const cellElement = (text) => {
    const code = element("code", undefined, "cell");
    text.split(",").forEach((block, index, all) => {
      code.append(element("span", index < all.length - 1 ? `${block},` : block));
      if (index < all.length - 1) code.append(element("wbr"));
    });
    return code;
  };

  // The table.
  const table = document.getElementById("trial-table"), body = table.tBodies[0];
  const find = document.getElementById("find"), found = document.getElementById("found");
  const more = document.getElementById("more");
  let shown = rows, drawn = 0, sorted = 0, direction = 1;

  const rowElement = (row) => {
    const line = element("tr");
    columns.forEach((column, at) => {
      const isCell = at === cellAt;
      const data = element("td", isCell ? undefined : written(row, at), isCell ? "whole" : "n");
      data.dataset.label = column.label;
      if (isCell) data.append(cellElement(row[at]));
      line.append(data);
    });
    return line;
  };
  const draw = () => {
    const end = Math.min(drawn + (drawn ? PIECE : FIRST), shown.length);
    body.append(...shown.slice(drawn, end).map(rowElement));
    drawn = end;
    const left = shown.length - drawn;
    more.hidden = left === 0;
    more.textContent = `Show ${count(Math.min(PIECE, left))} more of ${count(left)}`;
  };
  const key = (row) => (sorted === accuracyAt ? row[sorted][0] : row[sorted]);
  const compare = (one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return direction * (a < b ? -1 : a > b ? 1 : 0);
  };
  const refresh = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (row) => `${row[cellAt]} ${row[accuracyAt][2] === null ? "" : `failed ${row[accuracyAt][2]}`}`.toLowerCase();
    shown = rows.filter((row) => words.length === 0 || words.every((word) => text(row).includes(word)));
    shown.sort(compare);
    found.textContent = words.length ? `${count(shown.length)} of ${count(rows.length)}` : "";
    body.replaceChildren();
    drawn = 0;
    draw();
  };
  const heads = [...table.tHead.rows[0].cells];
  const sort = (at, way) => {
    [sorted, direction] = [at, way];
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    heads[at].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  };
  heads.forEach((head, at) => {
    const button = element("button", head.textContent);
    button.type = "button";
    button.addEventListener("click", () => {
      // The best first: most is sought at the top of accuracies, the least of everything else.
      sort(at, sorted === at ? -direction : at === accuracyAt ? -1 : 1);
      refresh();
    });
    head.replaceChildren(button);
  });
  if (rows.length > 1) find.closest("p").hidden = false;
  find.addEventListener("input", refresh, until);
  more.addEventListener("click", draw, until);
  if (before) {
    find.value = before.words;
    const at = columns.findIndex((column) => column.label === before.label);
    if (at >= 0) sort(at, before.direction);
  }
  refresh();
  while (before && drawn < before.drawn && drawn < shown.length) draw();

  // The dots.
  const tip = document.getElementById("tip");
  const trials = new Map(rows.map((row) => [row[numberAt], row]));
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.setAttribute("class", "ring");
  ring.setAttribute("r", "5");
  const dotsOf = (svg) =>
    [...svg.querySelectorAll("path.dots")].flatMap((path) => {
      const numbers = path.dataset.trials.split(" ").map(Number);
      const places = [...path.getAttribute("d").matchAll(/M(\S+) (-?[\d.]+)/g)];
      return places.map(([, x, y], index) => ({x: Number(x), y: Number(y), trial: numbers[index]}));
    });
  const hide = () => {
    tip.hidden = true;
    ring.remove();
  };
  const show = (svg, dot, event) => {
    const row = trials.get(dot.trial);
    if (!row) return hide();
    const failure = row[accuracyAt][2];
    tip.replaceChildren(element("strong", failure === null ? written(row, accuracyAt) : `failed: ${failure}`));
    tip.append(cellElement(row[cellAt]));
    const rest = columns.flatMap((column, at) =>
      at === accuracyAt || at === cellAt || row[at] === null ? [] : [`${column.label} ${written(row, at)}`]);
    tip.append(element("span", rest.join(" · ")));
    tip.hidden = false;
    const box = tip.getBoundingClientRect(), gap = 14;
    const left = Math.min(Math.max(event.clientX - box.width / 2, 8), window.innerWidth - box.width - 8);
    const above = event.clientY - box.height - gap;
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${above < 8 ? event.clientY + gap : above}px`;
    ring.setAttribute("cx", dot.x);
    ring.setAttribute("cy", dot.y);
    svg.append(ring);
  };
  document.querySelectorAll("figure svg").forEach((svg) => {
    if (!svg.querySelector("path.dots")) return;
    let dots;
    const look = (event) => {
      dots ??= dotsOf(svg);
      const matrix = svg.getScreenCTM();
      const x = (event.clientX - matrix.e) / matrix.a, y = (event.clientY - matrix.f) / matrix.d;
      let nearest, least = ((event.pointerType === "mouse" ? 9 : 24) / matrix.a) ** 2;
      for (const dot of dots) {
        const distance = (dot.x - x) ** 2 + (dot.y - y) ** 2;
        if (distance <= least) [nearest, least] = [dot, distance];
      }
      if (nearest) show(svg, nearest, event);
      else hide();
    };
    svg.classList.add("live");
    svg.addEventListener("pointermove", (event) => event.pointerType === "mouse" && look(event), until);
    svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide(), until);
    svg.addEventListener("click", look, until);
  });
  document.addEventListener("click", (event) => event.target.closest("svg.live") || hide(), until);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide(), until);
  document.addEventListener("scroll", hide, {passive: true, ...until});

  const end = () => {
    ending.abort();
    hide();
    const label = heads[sorted].hasAttribute("aria-sort") ? columns[sorted].label : null;
    return {words: find.value, label, direction, drawn};
  };
  return {end};
};
let explained = explain();
