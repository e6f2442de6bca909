// Lists in words: what fails or deviates in one TD, what differs between two.

const signed = (line) => el("td", {}, line ? chip(line.verdict) : "–");

function lineTable(cell, go) {
  const own = linesOf(cell).filter((line) => line.verdict.deviates || line.fails || line.named);
  const shown = filtered() ? linesOf(cell).filter(matches) : own;
  const rows = shown.map((line) => el("tr", {},
    el("td", { class: "mark" }, line.fails ? "✱" : ""),
    el("td", {}, placeButton(line, go)),
    el("td", {}, line.field.name, line.vcpu === null ? null : ` (vCPU ${line.vcpu})`, line.field.critical ? " (KVM relies on it)" : null),
    el("td", { class: "number" }, line.asked ?? "–"),
    el("td", { class: "number" }, line.chosen ?? "–"),
    el("td", { class: "number" }, line.got ?? "–"),
    el("td", { class: "number" }, line.guest ?? "–"),
    signed(line),
    el("td", {}, line.cause)));
  const title = filtered() ? `${plural(shown.length, "field")} of ${linesOf(cell).length} match the filter`
    : `${plural(shown.length, "field")} of ${linesOf(cell).length} deviate; ✱ fails the policy`;
  return listed(title, ["", "place", "name", "asked", "chosen", "got", "guest", "verdict", "cause"], rows);
}

const placeButton = (line, go) => el("button", { type: "button", class: "link place", on: { click: () => go(line) } }, line.field.where);

function differenceTable(one, other, go) {
  const pairs = differences(one, other);
  const shown = pairs.filter((pair) => pair.some((line) => line && matches(line)));
  const rows = shown.map((pair) => {
    const any = pair[0] ?? pair[1];
    const cells = pair.flatMap((line) => [
      el("td", { class: "number" }, line?.asked ?? "–"), el("td", { class: "number" }, line?.got ?? "–"),
      el("td", { class: "number" }, line?.guest ?? "–"), signed(line),
      el("td", {}, line?.cause ?? "neither asked for nor there")]);
    return el("tr", {}, el("td", {}, placeButton(any, go)),
      el("td", {}, any.field.name, any.vcpu === null ? null : ` (vCPU ${any.vcpu})`), ...cells);
  });
  const title = `${plural(pairs.length, "field differs", "fields differ")}`
    + `${filtered() ? `, ${shown.length} of them match${shown.length === 1 ? "es" : ""} the filter` : ""}`;
  const columns = LETTERS.flatMap((letter) => [`${letter} asked`, "got", "guest", "verdict", "cause"]);
  return listed(title, ["place", "name", ...columns], rows);
}

function listed(title, columns, rows) {
  const heading = el("h2", {}, title);
  if (!rows.length) return [heading];
  return [heading, el("div", { class: "scroll" }, el("table", { class: "lines" },
    el("thead", {}, el("tr", {}, ...columns.map((column) => el("th", { scope: "col" }, column)))),
    el("tbody", {}, ...rows)))];
}
