// The page: the filters, the way from the grid to a cell and to two of them, the colours.

const sections = {
  filters: document.getElementById("filters"),
  grid: document.getElementById("grid"),
  cell: document.getElementById("cell"),
};
let bits = null;
let drawn = null;
let refreshList = () => {};
let grid = null;

function summary() {
  const failed = cells.filter((cell) => cell.error !== null).length;
  const asked = cells.filter((cell) => cell.error === null && failing(cell) === 0).length;
  const said = [
    `${cells.length === 1 ? "1 TD" : `${cells.length} cells`}`,
    `${asked} as the policy wants`,
    `${cells.length - failed - asked} with failing lines`,
    `${failed} without a TD`,
  ];
  const same = data.axes.map((title, axis) => [title, axis])
    .filter(([, axis]) => cells.length > 1 && !varying.includes(axis)).map(([title, axis]) => `${title} ${cells[0].where[axis]}`);
  document.getElementById("summary").textContent = [said.join(" · "), ...(same.length ? [`everywhere: ${same.join(", ")}`] : [])].join(" — ");
}

// --- filters ---

const legend = new Map();
let causeSelect = null;
let nameInput = null;
let clear = null;
let found = null;

function makeFilters() {
  for (const verdict of verdicts) {
    const count = el("span", { class: "number" });
    const button = el("button", {
      type: "button", class: "chip filter", title: verdict.meaning, "aria-pressed": "false",
      on: {
        click: () => {
          if (!state.verdicts.delete(verdict.name)) state.verdicts.add(verdict.name);
          filter();
        },
      },
    }, el("span", { class: `swatch v-${verdict.name}`, "aria-hidden": "true" }, verdict.sign), verdict.name, count);
    legend.set(verdict.name, { button, count });
  }
  const causes = new Map();
  for (const line of lines) for (const cause of line.causes) causes.set(cause, (causes.get(cause) ?? 0) + 1);
  causeSelect = el("select", { id: "cause", on: { change: () => { state.cause = causeSelect.value; filter(); } } },
    el("option", { value: "" }, "any cause"),
    ...[...causes.keys()].sort().map((cause) => el("option", { value: cause }, cause)));
  nameInput = el("input", {
    id: "name", type: "search", placeholder: "avx512 or 0x7.0.ebx", spellcheck: "false", autocomplete: "off",
    on: { input: () => { state.name = nameInput.value; filter(); } },
  });
  clear = el("button", { type: "button", id: "clear", on: { click: () => { Object.assign(state, { verdicts: new Set(), cause: "", name: "" }); filter(); } } }, "Clear");
  found = el("output", { id: "found", "aria-live": "polite" });
  sections.filters.append(
    el("div", { class: "legend", role: "group", "aria-label": "Verdicts: the legend, and a filter" },
      ...[...legend.values()].map(({ button }) => button)),
    el("div", { class: "fields" },
      el("label", { for: "cause" }, "Cause"), causeSelect, el("label", { for: "name" }, "Name"), nameInput, clear, found));
}

function showFilters() {
  const shown = currentCells();
  const every = shown.flatMap(linesOf);
  for (const [name, { button, count }] of legend) {
    const number = every.filter((line) => line.verdict.name === name).length;
    button.setAttribute("aria-pressed", `${state.verdicts.has(name)}`);
    button.classList.toggle("none", number === 0);
    count.textContent = `${number}`;
  }
  causeSelect.value = state.cause;
  if (nameInput.value !== state.name) nameInput.value = state.name;
  clear.hidden = !filtered();
  found.textContent = filtered() ? `${every.filter(matches).length} of ${every.length} match` : "";
}

function currentCells() {
  if (state.cell === null) return cells;
  return (state.with === null ? [state.cell] : [state.cell, state.with]).map((number) => cells[number]);
}

function filter() {
  writeAddress(false);
  showFilters();
  if (state.cell === null) drawGridView();
  else if (bits) {
    bits.fade();
    refreshList();
  }
}

// --- views ---

function go(cell, other = null) {
  const from = state.cell;
  Object.assign(state, { cell, with: other, marked: null });
  writeAddress(true);
  show();
  window.scrollTo(0, 0);
  if (cell === null) grid?.focus(from);
  else sections.cell.querySelector("h2")?.focus();
}

function drawGridView() {
  grid = drawGrid(sections.grid, { open: (number) => go(number), compare: (one, other) => go(one, other) });
}

function show() {
  tip.hide();
  sections.filters.hidden = cells.every((cell) => cell.error !== null);
  sections.grid.hidden = state.cell !== null;
  sections.cell.hidden = state.cell === null;
  showFilters();
  bits = null;
  if (state.cell === null) drawGridView();
  else drawCell();
}

function cellPicker() {
  const own = cells[state.cell];
  const select = el("select", { id: "with", on: { change: () => go(own.number, select.value === "" ? null : Number(select.value)) } },
    el("option", { value: "" }, "nothing"),
    ...cells.filter((cell) => cell !== own && cell.error === null).map((cell) => el("option", { value: cell.number }, nameOf(cell))));
  select.value = state.with === null ? "" : `${state.with}`;
  return [el("label", { for: "with" }, "Compare with"), select];
}

const isRemark = ([title]) => title === "note" || title === "caveat";

function factPairs(cell) {
  const pairs = factsOf(cell).filter((pair) => !isRemark(pair));
  const told = new Set(pairs.map(([title]) => title));  // QEMU and KVM: the report says more than the axis
  return [...data.axes.map((title, axis) => [title, cell.where[axis]]).filter(([title]) => !told.has(title)), ...pairs];
}

// What both sides share is said once, above them.
function facts(cell, letter, shared) {
  const remarks = factsOf(cell).filter(isRemark);
  return el("div", { class: "facts" },
    letter ? el("h3", {}, el("span", { class: "letter" }, letter), nameOf(cell)) : null,
    el("dl", {}, ...[...factPairs(cell), ...(cell.seconds ? [["took", `${cell.seconds} s`]] : [])].filter((pair) => !shared.has(pair.join("\0")))
      .map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value)))),
    remarks.length ? el("details", { class: "remarks", open: !letter },
      el("summary", {}, plural(remarks.length, "remark")),
      ...remarks.map(([title, value]) => el("p", { class: "remark" }, el("b", {}, `${title}: `), value))) : null);
}

function drawCell() {
  const sides = currentCells();
  const broken = sides.filter((cell) => cell.error !== null);
  const two = sides.length > 1;
  const title = two ? "Two TDs side by side" : nameOf(sides[0]);
  const rowsBox = el("input", { type: "checkbox", id: "rows", on: { change: () => { state.rows = rowsBox.checked; writeAddress(false); show(); document.getElementById("rows").focus(); } } });
  rowsBox.checked = state.rows;
  const bar = el("div", { class: "bar" },
    cells.length > 1 ? el("button", { type: "button", id: "back", on: { click: () => go(null) } }, "← All cells") : null,
    ...(cells.length > 1 && !broken.length ? cellPicker() : []),
    two ? el("button", { type: "button", on: { click: () => go(state.with, state.cell) } }, "Swap") : null,
    broken.length ? null : el("label", { class: "check" }, rowsBox, two ? "Only rows that differ" : "Only rows that deviate"));
  const said = sides.map((cell) => factPairs(cell).map((pair) => pair.join("\0")));
  const shared = new Set(two ? said[0].filter((pair) => said[1].includes(pair)) : []);
  const head = [bar, el("h2", { tabindex: "-1" }, title),
    shared.size ? el("p", { class: "same" }, `The same for both: ${[...shared].map((pair) => pair.replace("\0", " ")).join(" · ")}`) : "",
    el("div", { class: "sides" }, ...sides.map((cell, side) => facts(cell, two ? LETTERS[side] : null, shared)))];
  if (broken.length) {
    sections.cell.replaceChildren(...head, ...broken.map((cell) => el("div", { class: "failures" },
      el("h2", {}, `No TD (exit status ${cell.status})`), el("pre", { class: "error" }, cell.error))));
    return;
  }
  bits = drawBits(sides);
  drawn = el("section", { class: "list" });
  refreshList = () => drawn.replaceChildren(...(two
    ? differenceTable(...sides, bits.focus) : lineTable(sides[0], bits.focus)));
  refreshList();
  sections.cell.replaceChildren(...head, el("p", { class: "hint" },
    "Arrow keys go from bit to bit, Home and End along a row, N and P to the next and the previous ",
    two ? "difference (outlined)." : "line that fails (marked in its corner).",
    " An underlined sign: KVM's own emulation relies on the bit."), bits.node, drawn);
}

// --- colours ---

function makeTheme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const say = () => button.setAttribute("aria-pressed", `${dark()}`);
  const remembered = (act) => {
    try {
      return act(window.localStorage);
    } catch {
      return null;  // no storage for this page: the choice lasts as long as the page
    }
  };
  const theme = remembered((storage) => storage.getItem("tdx-cpuid-theme"));
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remembered((storage) => storage.setItem("tdx-cpuid-theme", root.dataset.theme));
    say();
  });
  system.addEventListener("change", say);
  say();
}

document.addEventListener("keydown", (event) => {
  if (!bits || event.altKey || event.ctrlKey || event.metaKey || (event.key !== "n" && event.key !== "p")) return;
  if (event.target.closest(".bits, input, select, textarea")) return;
  event.preventDefault();
  bits.step(event.key);
});
window.addEventListener("popstate", () => { readAddress(); show(); });
readAddress();
makeTheme();
summary();
makeFilters();
show();
