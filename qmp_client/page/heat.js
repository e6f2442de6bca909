// The grid: CPU models down, the other axes that vary across, one colour for the number of lines that fail.

const STEPS = 6;

// What a cell's number counts, and how it is called. With a filter, lines that match it and deviate; with one for
// verdicts, whatever has them.
function counting() {
  if (!filtered()) return { counts: (line) => line.fails, what: "failing line" };
  if (state.verdicts.size) return { counts: matches, what: "matching line" };
  return { counts: (line) => line.verdict.deviates && matches(line), what: "matching line that deviates", many: "matching lines that deviate" };
}

const matching = (cell) => linesOf(cell).filter(matches);

// A filter that finds one line in each cell at most asks what became of that bit: then its verdict is shown.
const followsOneBit = () => filtered() && cells.every((cell) => matching(cell).length <= 1);

function columnKeys() {
  const axes = varying.filter((axis) => axis > 0);
  const order = axes.map((axis) => [...new Set(cells.map((cell) => cell.where[axis]))]);
  const keys = new Map();
  for (const cell of cells) {
    const at = axes.map((axis, level) => order[level].indexOf(cell.where[axis]));
    keys.set(at.join(), { at, names: axes.map((axis) => cell.where[axis]) });
  }
  const columns = [...keys.values()].sort((a, b) => {
    const level = a.at.findIndex((value, index) => value !== b.at[index]);
    return level === -1 ? 0 : a.at[level] - b.at[level];
  });
  return { axes, columns };
}

function heatHead({ axes, columns }) {
  const head = el("thead", { role: "rowgroup" });
  axes.forEach((axis, level) => {
    const row = el("tr", { role: "row" }, el("th", { role: "columnheader", class: "axis" }, data.axes[axis]));
    for (let from = 0; from < columns.length;) {
      const prefix = columns[from].names.slice(0, level + 1).join("\0");
      let to = from + 1;
      while (to < columns.length && columns[to].names.slice(0, level + 1).join("\0") === prefix) to += 1;
      row.append(el("th", { role: "columnheader", colspan: to - from, class: groupEdge(columns, from) ? "edge" : null },
        el("span", {}, columns[from].names[level])));
      from = to;
    }
    head.append(row);
  });
  if (!axes.length) {
    head.append(el("tr", { role: "row" }, el("th", { role: "columnheader", class: "axis" }, data.axes[0]),
      el("th", { role: "columnheader" }, "lines")));
  }
  return head;
}

// Where the group above the last axis changes, a gap helps the eye.
const groupEdge = (columns, at) => at > 0 && columns[at].at.length > 1
  && columns[at].at.slice(0, -1).join() !== columns[at - 1].at.slice(0, -1).join();

// Without a filter only deviations: what was honoured would leave them no room.
function mix(cell) {
  const counts = verdicts.filter((verdict) => filtered() || verdict.deviates).map((verdict) => (
    [verdict, matching(cell).filter((line) => line.verdict === verdict).length]));
  return el("span", { class: "mix", "aria-hidden": "true" }, ...counts.filter(([, count]) => count).map(([verdict, count]) => {
    const part = el("span", { class: `v-${verdict.name}` });
    part.style.flexGrow = count;
    return part;
  }));
}

function bitOf(cell, classes) {
  const [line] = matching(cell);
  return el("td", {
    role: "gridcell", tabindex: -1, class: `${line ? `v-${line.verdict.name}` : "absent"}${classes}`,
    "aria-label": `${nameOf(cell)}: ${line ? `${line.field.name} ${line.verdict.name}` : "neither asked for nor there"}`,
  }, el("span", { class: "count" }, line ? line.verdict.sign : "·"));
}

function heatCell(cell, { edge, most, counts, what, many, oneBit }) {
  if (!cell) return el("td", { role: "gridcell", class: `absent${edge}` });
  const marked = cell.number === state.marked ? " marked" : "";
  if (cell.error !== null) {
    return el("td", {
      role: "gridcell", tabindex: -1, class: `failed${marked}${edge}`,
      "aria-label": `${nameOf(cell)}: failed: ${cell.error}`,
    }, el("span", { class: "count" }, "✕"), el("span", { class: "mix error" }, "no TD"));
  }
  if (oneBit) return bitOf(cell, `${marked}${edge}`);
  const count = linesOf(cell).filter(counts).length;
  const step = count === 0 ? 0 : Math.max(1, Math.ceil(STEPS * Math.sqrt(count / most)));
  return el("td", {
    role: "gridcell", tabindex: -1, class: `heat h${step}${marked}${edge}`,
    "aria-label": `${nameOf(cell)}: ${plural(count, what, many)}`,
  }, el("span", { class: "count" }, count === 0 && !filtered() ? "✓" : `${count}`), mix(cell));
}

function heatTip({ cell }) {
  const content = [el("strong", {}, nameOf(cell))];
  if (cell.error !== null) {
    content.push(el("p", {}, chipFor("failed", `exit status ${cell.status}`)), el("p", { class: "error" }, cell.error));
    return content;
  }
  const own = linesOf(cell);
  content.push(el("p", {}, `${plural(failing(cell), "line")} of ${own.length} fail`));
  const found = filtered() ? matching(cell) : [];
  if (filtered()) content.push(el("p", {}, `${plural(found.length, "line")} of them match the filter`));
  if (found.length === 1) {
    content.push(el("p", {}, chip(found[0].verdict)), el("p", {}, `${found[0].field.name}: ${found[0].cause}`));
    return content;
  }
  content.push(el("ul", { class: "counts" }, ...verdicts
    .map((verdict) => [verdict, own.filter((line) => line.verdict === verdict).length])
    .filter(([, count]) => count)
    .map(([verdict, count]) => el("li", {}, chip(verdict), el("span", { class: "number" }, `${count}`)))));
  return content;
}

const chipFor = (name, words) => el("span", { class: "chip" }, el("span", { class: `swatch ${name}` }, "✕"), words);

function drawGrid(section, { open, compare }) {
  const { axes, columns } = columnKeys();
  const byPlace = new Map(cells.map((cell) => (
    [JSON.stringify([cell.where[0], ...axes.map((axis) => cell.where[axis])]), cell])));
  const { counts, what, many } = counting();
  const oneBit = followsOneBit();
  const most = Math.max(1, ...cells.map((cell) => linesOf(cell).filter(counts).length));
  const body = el("tbody", { role: "rowgroup" });
  const items = [];
  for (const cpu of new Set(cells.map((cell) => cell.where[0]))) {
    const row = el("tr", { role: "row" }, el("th", { role: "rowheader", scope: "row" }, cpu));
    const own = [];
    columns.forEach((column, x) => {
      const cell = byPlace.get(JSON.stringify([cpu, ...column.names]));
      const node = heatCell(cell, { edge: groupEdge(columns, x) ? " edge" : "", most, counts, what, many, oneBit });
      row.append(node);
      if (cell) own.push({ node, cell, from: x, to: x });
    });
    body.append(row);
    items.push(own);
  }
  const table = el("table", { role: "grid", class: "heatmap", "aria-label": "Failing lines of each cell" },
    heatHead({ axes, columns }), body);
  const grid = roving(table, items, {
    tipOf: heatTip,
    act(item, event) {
      const picks = event.key === "c" || (event.type === "click" && event.shiftKey);
      if (picks && state.marked !== null && state.marked !== item.cell.number) compare(state.marked, item.cell.number);
      else if (picks) mark(item);
      else if (event.type === "click" || event.key === "Enter" || event.key === " ") open(item.cell.number);
      else return false;
      return true;
    },
  });
  function mark(item) {
    const old = state.marked;
    state.marked = old === item.cell.number ? null : item.cell.number;
    for (const other of items.flat()) other.node.classList.toggle("marked", other.cell.number === state.marked);
  }
  const shown = oneBit ? "The verdict on the one line that matches the filter"
    : `The number of ${many ?? `${what}s`}; below it, how the verdicts${filtered() ? "" : " that deviate"} are mixed`;
  section.replaceChildren(
    el("p", { class: "hint" }, `${shown}. Open a cell with a click or Enter; compare two with Shift and click, or with C on each.`),
    el("div", { class: "scroll" }, table), oneBit ? "" : heatScale(most, many ?? `${what}s`), failures(open));
  return { focus: (number) => items.flat().filter((item) => item.cell.number === number).forEach(grid.focus) };
}

function heatScale(most, title) {
  const highest = Array.from({ length: STEPS }, (_, index) => Math.floor(most * ((index + 1) / STEPS) ** 2));
  const steps = highest.map((count, index) => [count, index + 1])
    .filter(([count, step]) => count > (highest[step - 2] ?? 0))  // with few lines some steps hold no number
    .map(([count, step]) => el("span", { class: `heat h${step}` }, `${count}`));
  return el("p", { class: "scale" }, el("span", {}, title),
    el("span", { class: "heat h0" }, filtered() ? "0" : "✓"), el("span", { class: "steps" }, "up to"), ...steps,
    el("span", { class: "swatch failed" }, "✕"), el("span", {}, "no TD"));
}

// Why cells failed, each reason once.
function failures(open) {
  const reasons = new Map();
  for (const cell of cells.filter((each) => each.error !== null)) {
    reasons.set(cell.error, [...(reasons.get(cell.error) ?? []), cell]);
  }
  if (!reasons.size) return "";
  return el("section", { class: "failures" }, el("h2", {}, "Cells without a TD"),
    ...[...reasons].map(([error, own]) => el("article", {},
      el("pre", { class: "error" }, error),
      el("p", {}, ...own.map((cell) => el("button", { type: "button", class: "link", on: { click: () => open(cell.number) } },
        nameOf(cell)))))));
}
