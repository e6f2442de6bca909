"use strict";
// What the page shows, unpacked from the data that pack.py wrote; which lines the filter lets through; the address.

const data = JSON.parse(document.getElementById("data").textContent);
const NONE = -1;
const NAMED = 1;
const FAILS = 2;
const REGISTERS = ["eax", "ebx", "ecx", "edx"];

const text = (number) => (number === NONE ? null : data.strings[number]);
const verdicts = data.verdicts.map(([name, sign, meaning, deviates], number) => (
  { name, sign, meaning, deviates: deviates === 1, number }));

const fields = data.fields.map(([leaf, subleaf, register, low, high, name, critical]) => {
  const place = `0x${leaf.toString(16)}${subleaf === NONE ? "" : `.${subleaf}`}`;
  const bits = low === high ? `${low}` : `${high}:${low}`;
  return {
    leaf: place,
    register: REGISTERS[register],
    row: `${place} ${REGISTERS[register]}`,
    order: [leaf, subleaf, register, -high],
    low,
    high,
    bits,
    name: text(name),
    critical: critical === 1,
    where: `${place}.${REGISTERS[register]}[${bits}]`,
  };
});

const lines = data.lines.map(([field, asked, chosen, got, guest, verdict, cause, special, vcpu], number) => ({
  number,
  field: fields[field],
  asked: text(asked),
  chosen: text(chosen),
  got: text(got),
  guest: text(guest),
  verdict: verdicts[verdict],
  cause: text(cause),
  causes: text(cause).split(", "),
  named: (special & NAMED) !== 0,
  fails: (special & FAILS) !== 0,
  vcpu: vcpu === NONE ? null : vcpu,
}));

const cells = data.cells.map(([where, seconds, status, error, facts, base, steps], number) => ({
  number, where: where.map(text), seconds, status, error: text(error), facts, base, steps, lines: null,
}));

// Axes on which the cells differ; the CPU model names the rows in any case.
const varying = data.axes.map((_, axis) => axis)
  .filter((axis) => new Set(cells.map((cell) => cell.where[axis])).size > 1);

function factsOf(cell) {
  const pairs = [];
  const numbers = cell.error === null ? data.facts[cell.facts] : [];
  for (let i = 0; i < numbers.length; i += 2) pairs.push([text(numbers[i]), text(numbers[i + 1])]);
  return pairs;
}

// A cell is said as its difference from an earlier one: follow the bases back, then apply the differences forward.
function linesOf(cell) {
  if (cell.error !== null) return [];
  const pending = [];
  let current = cell;
  while (current && current.lines === null) {
    pending.push(current);
    current = current.base === NONE ? null : cells[current.base];
  }
  let known = current ? current.lines : [];
  while (pending.length) {
    const next = pending.pop();
    const present = new Set(known.map((line) => line.number));
    let number = 0;
    for (const step of next.steps) {
      number += step;
      if (!present.delete(number)) present.add(number);
    }
    known = [...present].sort((a, b) => a - b).map((each) => lines[each]);
    next.lines = known;
  }
  return known;
}

const failing = (cell) => linesOf(cell).filter((line) => line.fails).length;
const nameOf = (cell, axes = [0, ...varying.filter((axis) => axis > 0)]) => (
  axes.map((axis) => cell.where[axis]).join(" · "));

// --- what is shown: the address after # holds all of it, so that a view can be sent to somebody ---

const state = { cell: null, with: null, verdicts: new Set(), cause: "", name: "", rows: false, marked: null };

function readAddress() {
  const given = new URLSearchParams(window.location.hash.slice(1));
  const cellAt = (key) => {
    const number = given.get(key);
    return number !== null && /^\d+$/.test(number) && Number(number) < cells.length ? Number(number) : null;
  };
  state.cell = cells.length === 1 ? 0 : cellAt("cell");
  state.with = state.cell === null || cellAt("with") === state.cell ? null : cellAt("with");
  const known = new Set(verdicts.map((verdict) => verdict.name));
  state.verdicts = new Set((given.get("verdict") ?? "").split(",").filter((name) => known.has(name)));
  state.cause = given.get("cause") ?? "";
  state.name = given.get("name") ?? "";
  state.rows = given.get("rows") === "some";
}

function writeAddress(step) {
  const said = new URLSearchParams();
  if (state.cell !== null && cells.length > 1) said.set("cell", state.cell);
  if (state.with !== null) said.set("with", state.with);
  if (state.verdicts.size) said.set("verdict", [...state.verdicts].sort().join(","));
  if (state.cause) said.set("cause", state.cause);
  if (state.name) said.set("name", state.name);
  if (state.rows) said.set("rows", "some");
  const address = `#${said}`;
  if (address === (window.location.hash || "#")) return;
  try {
    window.history[step ? "pushState" : "replaceState"](null, "", address);
  } catch {
    // A sandboxed preview allows no history: the page works, only its address stays.
  }
}

// --- the filter ---

const filtered = () => state.verdicts.size > 0 || state.cause !== "" || state.name !== "";

function matches(line) {
  if (state.verdicts.size && !state.verdicts.has(line.verdict.name)) return false;
  if (state.cause && !line.causes.includes(state.cause)) return false;
  const wanted = state.name.trim().toLowerCase();
  return !wanted || line.field.name.toLowerCase().includes(wanted) || line.field.where.includes(wanted);
}

// --- comparing ---

const fieldKey = (line) => `${line.field.where} ${line.field.name} ${line.vcpu}`;

// Fields that differ between two cells: asked, chosen, got, guest, verdict or cause; either line may be missing.
function differences(one, other) {
  const pairs = new Map();
  const sides = [linesOf(one), linesOf(other)];
  sides.forEach((own, side) => {
    const opposite = new Set(sides[1 - side]);
    for (const line of own) {
      if (opposite.has(line)) continue;
      const pair = pairs.get(fieldKey(line)) ?? [null, null];
      pair[side] = line;
      pairs.set(fieldKey(line), pair);
    }
  });
  const order = (pair) => (pair[0] ?? pair[1]).field.order;
  return [...pairs.values()].sort((a, b) => {
    const [first, second] = [order(a), order(b)];
    const at = first.findIndex((value, index) => value !== second[index]);
    return at === -1 ? 0 : first[at] - second[at];
  });
}
