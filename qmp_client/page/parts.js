// Parts that several views share. Data reaches the document only as text: never as markup, style or address.

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else node.setAttribute(key, value === true ? "" : `${value}`);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

const chip = (verdict) => el("span", { class: "chip" },
  el("span", { class: `swatch v-${verdict.name}`, "aria-hidden": "true" }, verdict.sign), verdict.name);

// One tip for the whole page: next to what the pointer is on or what has the focus; Escape puts it away. The pointer
// goes through it (style), or it would bar the way to the cells that it covers.
const tip = {
  node: document.getElementById("tip"),
  owner: null,

  show(owner, content) {
    this.hide();
    this.owner = owner;
    this.node.replaceChildren(...content);
    this.node.hidden = false;
    owner.setAttribute("aria-describedby", "tip");
    this.place();
  },

  place() {
    const edge = 8;
    this.node.style.left = "0";  // measured where the edge of the window does not narrow it
    const [at, own] = [this.owner.getBoundingClientRect(), this.node.getBoundingClientRect()];
    const left = Math.min(at.left, document.documentElement.clientWidth - own.width - edge);
    const below = at.bottom + edge / 2;
    const fits = below + own.height <= document.documentElement.clientHeight;
    this.node.style.left = `${Math.max(edge, left)}px`;
    this.node.style.top = `${fits ? below : Math.max(edge, at.top - own.height - edge / 2)}px`;
  },

  hide() {
    this.owner?.removeAttribute("aria-describedby");
    this.owner = null;
    this.node.hidden = true;
  },
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !tip.node.hidden) {
    tip.hide();
    event.stopImmediatePropagation();
  }
});
document.addEventListener("scroll", () => {
  if (tip.owner === null) return;
  if (tip.owner === document.activeElement) tip.place();
  else tip.hide();
}, { passive: true, capture: true });

// Keys on an ARIA grid with one tab stop. rows: lists of {node, from, to, ...} from left to right, in columns.
// tipOf(item) gives the tip's content; act(item, event) is told of Enter, Space, clicks and letters.
function roving(table, rows, { tipOf, act, jump = () => false }) {
  const places = new Map();
  rows.forEach((row, y) => row.forEach((item, x) => places.set(item.node, { item, y, x })));
  const at = (event) => places.get(event.target.closest("td, th"));
  let wished = null;

  const tabStop = (item) => {
    for (const old of table.querySelectorAll('[tabindex="0"]')) old.tabIndex = -1;
    item.node.tabIndex = 0;
  };
  const distance = (item) => (wished < item.from ? item.from - wished : Math.max(0, wished - item.to));
  const focus = (item) => {
    tabStop(item);
    item.node.focus();
    item.node.scrollIntoView({ block: "nearest", inline: "nearest" });
    tip.show(item.node, tipOf(item));
  };
  const vertical = (y, step) => {
    for (let next = y + step; next >= 0 && next < rows.length; next += step) {
      if (rows[next].length) return rows[next].reduce((a, b) => (distance(b) < distance(a) ? b : a));
    }
    return null;
  };

  table.addEventListener("keydown", (event) => {
    const here = at(event);
    if (!here || event.altKey || event.metaKey) return;
    const { item, y, x } = here;
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") wished = null;
    let next = null;
    if (event.key === "ArrowLeft") next = rows[y][x - 1];
    else if (event.key === "ArrowRight") next = rows[y][x + 1];
    else if (event.key === "Home") next = event.ctrlKey ? rows.find((row) => row.length)?.[0] : rows[y][0];
    else if (event.key === "End") next = (event.ctrlKey ? rows.findLast((row) => row.length) : rows[y]).at(-1);
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      wished ??= item.from;
      next = vertical(y, event.key === "ArrowUp" ? -1 : 1);
    } else {
      if (event.ctrlKey) return;
      next = jump(item, event.key);
      if (next === false) {
        if (act(item, event)) event.preventDefault();
        return;
      }
    }
    event.preventDefault();
    if (next) focus(next);
  });
  table.addEventListener("focusin", (event) => {
    const here = at(event);
    if (here) {
      tabStop(here.item);
      tip.show(here.item.node, tipOf(here.item));
    }
  });
  table.addEventListener("focusout", () => tip.hide());
  table.addEventListener("mouseover", (event) => {
    const here = at(event);
    if (here) tip.show(here.item.node, tipOf(here.item));
    else tip.hide();
  });
  table.addEventListener("mouseleave", () => tip.hide());
  table.addEventListener("click", (event) => {
    const here = at(event);
    if (here) act(here.item, event);
  });
  const first = rows.find((row) => row.length)?.[0];
  if (first) first.node.tabIndex = 0;
  return { focus };
}
