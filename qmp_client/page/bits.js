// The bit map: leaf and register rows, bits 31 to 0 across, once for one TD and side by side for two.

const LETTERS = ["A", "B"];

// What a TD has in one register row: items that never overlap. A line on bits that another one has already (a vCPU
// that differs from the first) goes with that one.
function itemsByRow(own) {
  const rows = new Map();
  const ordered = [...own].sort((a, b) => (a.vcpu !== null) - (b.vcpu !== null));
  for (const line of ordered) {
    const items = rows.get(line.field.row) ?? [];
    const { low, high } = line.field;
    const taken = items.find((item) => item.line.field.low <= high && low <= item.line.field.high);
    if (taken) taken.more.push(line);
    else items.push({ line, more: [], low, high });
    rows.set(line.field.row, items);
  }
  for (const items of rows.values()) items.sort((a, b) => b.high - a.high);
  return rows;
}

// Where there is no room for every number, the ends of each byte must do.
const bitRank = (bit) => (bit === 0 || bit % 8 === 7 ? "" : bit % 8 === 0 ? " low" : " minor");

function bitHead(sides) {
  const names = sides.length > 1 ? el("tr", { role: "row" }, el("th", { colspan: 2, role: "columnheader" }),
    ...sides.flatMap((cell, side) => [
      ...(side ? [el("td", { class: "gap", role: "gridcell" })] : []),
      el("th", { colspan: 32, role: "columnheader", class: "side" }, `${LETTERS[side]}: ${nameOf(cell)}`)])) : null;
  const numbers = el("tr", { role: "row" }, el("th", { role: "columnheader", class: "leaf" }, "leaf"),
    el("th", { role: "columnheader", class: "register" }, "reg"),
    ...sides.flatMap((_, side) => [
      ...(side ? [el("td", { class: "gap", role: "gridcell" })] : []),
      ...Array.from({ length: 32 }, (__, index) => el("th", {
        role: "columnheader", class: `bit${bitRank(31 - index)}`,
      }, `${31 - index}`))]));
  return el("thead", { role: "rowgroup" }, names, numbers);
}

function bitColumns(sides) {
  const group = el("colgroup", {}, el("col", { class: "leaf" }), el("col", { class: "register" }));
  sides.forEach((_, side) => {
    if (side) group.append(el("col", { class: "gap" }));
    for (let byte = 0; byte < 4; byte += 1) group.append(el("col", { span: 8, class: byte % 2 ? "even" : "odd" }));
  });
  return group;
}

function say(line, side, count) {
  const { field } = line;
  return [
    `${count > 1 ? `${LETTERS[side]}: ` : ""}${field.where} ${field.name}: ${line.verdict.name}`,
    `cause ${line.cause}`,
    `asked ${line.asked ?? "nothing"}`,
    `chosen ${line.chosen ?? "nothing"}`,
    `got ${line.got ?? "nothing"}`,
    ...(line.guest === null || line.guest === line.got ? [] : [`the guest sees ${line.guest}`]),
    ...(line.fails ? ["fails the policy"] : []),
  ].join(", ");
}

function bitNode(item, side, count) {
  const { line, low, high } = item;
  const width = Math.max(1, Math.min(32, high - low + 1));
  const classes = ["f", `v-${line.verdict.name}`];
  if (width > 1) classes.push("span");
  if (line.fails || item.more.some((each) => each.fails)) classes.push("fails");
  if (line.field.critical) classes.push("critical");
  const sign = el("span", { class: "sign" }, line.verdict.sign);
  const value = width >= (count > 1 ? 4 : 3) ? el("span", { class: "value" }, line.guest ?? line.got ?? "") : null;
  return el("td", {
    role: "gridcell", tabindex: -1, class: classes.join(" "), colspan: width > 1 ? width : null,
    "aria-colindex": 3 + side * 33 + 31 - high, "aria-colspan": width > 1 ? width : null,
    "aria-label": say(line, side, count),
  }, sign, value);
}

function bitRow(row, items, { leaf, height, counted }) {
  const node = el("tr", { role: "row" });
  if (leaf) node.append(el("th", { role: "rowheader", scope: "rowgroup", rowspan: height, class: "leaf" }, leaf));
  node.append(el("th", { role: "rowheader", scope: "row", class: "register" }, row.split(" ")[1]));
  items.forEach((own, side) => {
    if (side) node.append(el("td", { class: "gap", role: "presentation" }));
    let bit = 31;
    for (const item of own) {
      for (; bit > item.high; bit -= 1) node.append(el("td", { class: "blank", role: "presentation" }));
      item.node = bitNode(item, side, counted);
      item.side = side;
      item.from = side * 100 + 31 - item.high;
      item.to = side * 100 + 31 - item.low;
      node.append(item.node);
      bit = item.low - 1;
    }
    for (; bit >= 0; bit -= 1) node.append(el("td", { class: "blank", role: "presentation" }));
  });
  return node;
}

function drawBits(sides) {
  const perSide = sides.map((cell) => itemsByRow(linesOf(cell)));
  const opposite = sides.map((_, side) => (sides.length > 1 ? new Set(linesOf(sides[1 - side])) : null));
  const differs = (item) => opposite[item.side] !== null && [item.line, ...item.more].some((line) => !opposite[item.side].has(line));
  const interesting = (item, side) => (sides.length > 1
    ? differs({ ...item, side }) : [item.line, ...item.more].some((line) => line.verdict.deviates || line.fails));

  const order = new Map();
  for (const cell of sides) for (const line of linesOf(cell)) order.set(line.field.row, line.field);
  const rowNames = [...order].sort(([, a], [, b]) => (
    a.order[0] - b.order[0] || a.order[1] - b.order[1] || a.order[2] - b.order[2])).map(([row]) => row)
    .filter((row) => !state.rows || perSide.some((rows, side) => (rows.get(row) ?? []).some((item) => interesting(item, side))));

  const rows = [];
  const bodies = [];
  for (let at = 0; at < rowNames.length;) {
    const { leaf } = order.get(rowNames[at]);
    let to = at;
    while (to < rowNames.length && order.get(rowNames[to]).leaf === leaf) to += 1;
    const body = el("tbody", { role: "rowgroup" });
    for (let each = at; each < to; each += 1) {
      const items = perSide.map((own) => own.get(rowNames[each]) ?? []);
      body.append(bitRow(rowNames[each], items, { leaf: each === at ? leaf : null, height: to - at, counted: sides.length }));
      rows.push(items.flat());
    }
    bodies.push(body);
    at = to;
  }
  const all = rows.flat();
  for (const item of all) item.node.classList.toggle("differs", differs(item));

  const table = el("table", {
    role: "grid", class: `bits${sides.length > 1 ? " two" : ""}`, "aria-readonly": "true",
    "aria-colcount": 2 + 33 * sides.length - 1, "aria-rowcount": rowNames.length + sides.length,
    "aria-label": sides.map((cell) => `CPUID bits of ${nameOf(cell)}`).join(", next to "),
  }, bitColumns(sides), bitHead(sides), ...bodies);

  const counterpart = (item) => (sides.length < 2 ? null
    : linesOf(sides[1 - item.side]).find((line) => fieldKey(line) === fieldKey(item.line)) ?? null);
  const marked = (item) => item.node.classList.contains(sides.length > 1 ? "differs" : "fails");
  const beside = (item, key) => {
    const reached = all.filter((each) => each === item || marked(each));
    return reached[reached.indexOf(item) + (key === "n" ? 1 : -1)] ?? null;
  };
  const grid = roving(table, rows, {
    tipOf: (item) => bitTip(item, sides.length > 1, counterpart(item)),
    act: () => false,
    jump: (item, key) => (key === "n" || key === "p" ? beside(item, key) : false),
  });
  const fade = () => {
    for (const item of all) item.node.classList.toggle("faded", ![item.line, ...item.more].some(matches));
  };
  fade();
  return {
    node: el("div", { class: "map" }, table),
    fade,
    step(key) {  // N or P outside the map: where it was left, if that is a line that fails (or differs)
      const left = all.find((item) => item.node.tabIndex === 0);
      const item = left && (key === "n" && marked(left) ? left : beside(left, key));
      if (item) grid.focus(item);
    },
    focus(line) {
      const item = all.find((each) => each.line === line || each.more.includes(line));
      if (item) grid.focus(item);
    },
  };
}

function values(own) {
  const row = (title, read) => el("tr", {}, el("th", { scope: "row" }, title), ...own.map((line) => el("td", {}, line ? read(line) : "–")));
  return [
    row("asked", (line) => line.asked ?? "–"),
    row("chosen", (line) => line.chosen ?? "–"),
    row("got", (line) => line.got ?? "–"),
    row("guest", (line) => line.guest ?? "–"),
    row("verdict", (line) => chip(line.verdict)),
    row("cause", (line) => line.cause),
  ];
}

function bitTip(item, two, other) {
  const { line, more } = item;
  const sides = two ? [line, other] : [line];
  if (item.side === 1) sides.reverse();
  return [
    el("strong", {}, line.field.name), el("code", {}, line.field.where),
    el("table", {}, two ? el("tr", {}, el("td"), ...LETTERS.map((letter) => el("th", { scope: "col" }, letter))) : null,
      ...values(sides)),
    two ? null : el("p", {}, `${line.verdict.name}: ${line.verdict.meaning}.`),
    line.fails ? el("p", { class: "error" }, "Fails the policy.") : null,
    line.field.critical ? el("p", {}, "KVM's own emulation relies on this bit.") : null,
    line.named ? el("p", {}, "Named in -cpu.") : null,
    ...more.map((each) => el("p", {}, `vCPU ${each.vcpu ?? 0} differs: ${each.field.name} ${each.got ?? "–"} (${each.verdict.name}, ${each.cause})`)),
  ].filter((part) => part !== null);
}
