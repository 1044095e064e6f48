// Layers of several images in one, by clicking or dragging over a table; or a grid of rows and columns.

import { frames, newest, post } from "./api.js";
import { model, SAMPLING, sampling, shownSize, thumbnail } from "./model.js";
import { pick, settle, state, update } from "./state.js";
import { announce, button, complain, el, imageCanvas, labelOf, rove, show, slider } from "./ui.js";
import { needsItem, showCommand, styleGroups } from "./tray.js";

export function create(root) {
  const modes = el("div", { className: "bar", role: "group", "aria-label": "How to mix" });
  const body = el("div", { className: "body" });
  const views = { layers: createLayers(root), grid: createGrid(root) };
  for (const [mode, title] of [["layers", "By layer"], ["grid", "Rows and columns"]]) {
    modes.append(button(title, () => update({ mode }), { "data-mode": mode }));
  }
  root.append(modes, body);
  return (changed) => {
    for (const element of modes.children) element.setAttribute("aria-pressed", String(element.dataset.mode === state.mode));
    if (!state.picks.length) return needsItem(body);
    const { element, refresh } = views[state.mode] ?? views.layers;
    if (body.firstChild !== element) body.replaceChildren(element);
    return refresh(changed);
  };
}

const sourceOf = (layer) => Math.min(state.by[layer] ?? 0, state.picks.length - 1);

function assign(place, layers) {
  const by = Array.from({ length: model.num_ws }, (_, i) => (layers.includes(i) ? place : sourceOf(i)));
  update({ by }, `assign ${place}`);
}

export function mixBody() {
  const donors = state.picks.slice(1).map((item, k) => ({
    item,
    layers: model.layers.map((layer) => layer.index).filter((i) => sourceOf(i) === k + 1),
  }));
  return { base: state.picks[0], donors: donors.filter((donor) => donor.layers.length), blend: state.blend, ...sampling() };
}

function createLayers(root) {
  const canvas = imageCanvas("Mixed image", { className: "result" });
  const blend = slider("Blend", {
    min: 0, max: 1, step: 0.01, value: state.blend, reset: 1, format: (x) => x.toFixed(2), onvalue: (x) => update({ blend: x }, "blend"),
  });
  const keep = button("Keep", async () => {
    try {
      const { item } = await post("/api/keep", { kind: "mix", ...mixBody() });
      pick(item);
      announce(`Kept as ${item}`);
    } catch (error) {
      complain(error);
    }
  }, { title: "Write latents and image to the output folder, and pick the image" });
  const table = el("table", { className: "layers" });
  const hint = el("p", { className: "muted" }, "Each column is a layer, from coarse to fine. Click or drag over the cells of an image to take these layers from it.");
  const side = el("div", { className: "side" }, hint, el("div", { className: "scroll" }, table), blend, keep);
  const element = el("div", { className: "split" }, el("figure", {}, canvas), side);
  const render = newest(async () => {
    const { images, command } = await frames("/api/mix", { size: shownSize(canvas), ...mixBody() });
    show(canvas, images[0]);
    showCommand(root, command);
  }, complain);
  let built = "";
  brush(table);
  return {
    element,
    refresh(changed) {
      const now = JSON.stringify(state.picks);
      if (now !== built) build(table);
      else if (SAMPLING.some((key) => changed.has(key))) again(table);
      built = now;
      for (const cell of table.querySelectorAll("button.layer")) {
        cell.setAttribute("aria-pressed", String(sourceOf(Number(cell.dataset.layer)) === Number(cell.dataset.place)));
      }
      blend.set(state.blend);
      return render();
    },
  };
}

const again = (root) => root.querySelectorAll("canvas[data-item]").forEach((canvas) => thumbnail(canvas, JSON.parse(canvas.dataset.item)));

function build(table) {
  const groups = styleGroups();
  const wide = (name) => model.groups[name].length;
  const heads = groups.length ? groups.map(([name]) => el("th", { colSpan: wide(name), scope: "colgroup", className: "group" }, name)) : [];
  const numbers = model.layers.map(({ index, name, size, group }) =>
    el("th", { scope: "col", title: `${name}, ${size}`, className: starts(index) ? "first" : "", "aria-label": `Layer ${index}, ${size}${group ? `, ${group}` : ""}` }, String(index)),
  );
  const rows = state.picks.map((item, place) => {
    const canvas = imageCanvas("");
    thumbnail(canvas, item);
    const cells = model.layers.map(({ index, size }) =>
      el("td", { className: starts(index) ? "first" : "" },
        button("", () => assign(place, [index]), {
          className: "layer", "data-layer": index, "data-place": place, tabIndex: -1, "aria-label": `Layer ${index}, ${size}, from ${labelOf(item)}`,
        })),
    );
    const spans = groups.map(([name, layers]) => button(name, () => { settle(); assign(place, layers); }, { className: "quiet small", "aria-label": `All ${name} layers from ${labelOf(item)}` }));
    const head = el("th", { scope: "row" }, canvas, el("span", {}, labelOf(item)));
    return el("tr", {}, head, cells, el("td", { className: "spans" }, spans));
  });
  const top = heads.length ? [el("tr", {}, el("td", {}), heads, el("td", {}))] : [];
  table.replaceChildren(el("thead", {}, top, el("tr", {}, el("td", {}), numbers, el("td", {}))), el("tbody", {}, rows));
  const first = table.querySelector("button.layer");
  if (first) first.tabIndex = 0;
}

const starts = (index) => styleGroups().some(([, layers]) => layers[0] === index) && index > 0;

// Dragging over cells assigns all of them to the image in whose row the drag began.
function brush(table) {
  let place = null;
  const cellAt = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest("button.layer");
  table.addEventListener("pointerdown", (event) => {
    const cell = event.target.closest("button.layer");
    if (!cell) return;
    settle();
    place = Number(cell.dataset.place);
    event.target.releasePointerCapture?.(event.pointerId);
  });
  table.addEventListener("pointermove", (event) => {
    const cell = place === null ? null : cellAt(event);
    if (cell && sourceOf(Number(cell.dataset.layer)) !== place) assign(place, [Number(cell.dataset.layer)]);
  });
  window.addEventListener("pointerup", () => (place = null));
  rove(table, "button.layer", () => model.num_ws);
}

// -------------------------------------------------------------------------------------------- rows and columns

function createGrid(root) {
  const blend = slider("Blend", {
    min: 0, max: 1, step: 0.01, value: state.blend, reset: 1, format: (x) => x.toFixed(2), onvalue: (x) => update({ blend: x }, "blend"),
  });
  const chooser = el("div", { className: "chooser", role: "group", "aria-label": "Rows and columns" });
  const layers = el("div", { className: "bar", role: "group", "aria-label": "Layers from the columns" });
  const table = el("div", { className: "matrix" });
  const side = el("div", { className: "side" }, el("p", { className: "muted" }, "Each image has the chosen layers of its column, and the others of its row. Rows and columns are at most eight each."), layers, blend, chooser);
  const element = el("div", { className: "split" }, el("figure", { className: "wide" }, el("div", { className: "scroll" }, table)), side);
  const most = 8;
  const sides = () => {
    const cols = state.picks.filter((item) => columns().includes(item)).slice(0, most);
    const rows = state.picks.filter((item) => !columns().includes(item)).slice(0, most);
    return { rows, cols };
  };
  const chosen = () => state.gridLayers ?? model.groups.coarse ?? [0];
  const render = newest(async () => {
    const { rows, cols } = sides();
    if (!rows.length || !cols.length) return;
    const size = Math.max(48, Math.min(256, Math.round((table.clientWidth / (cols.length + 1)) * devicePixelRatio)));
    const { images, command } = await frames("/api/grid", { rows, cols, layers: chosen(), blend: state.blend, size, ...sampling() });
    fill(table, rows, cols, images);
    showCommand(root, command);
  }, complain);
  return {
    element,
    refresh(changed) {
      blend.set(state.blend);
      layers.replaceChildren(...styleGroups().map(([name, indices]) => {
        const on = indices.every((i) => chosen().includes(i));
        const toggle = () => {
          const next = on ? chosen().filter((i) => !indices.includes(i)) : [...new Set([...chosen(), ...indices])].sort((a, b) => a - b);
          if (next.length) update({ gridLayers: next });
        };
        return button(name, toggle, { "aria-pressed": String(on) });
      }), ...model.layers.map(({ index, size }) => {
        const on = chosen().includes(index);
        const next = on ? chosen().filter((i) => i !== index) : [...chosen(), index].sort((a, b) => a - b);
        return button(String(index), () => next.length && update({ gridLayers: next }), { className: "small", "aria-pressed": String(on), "aria-label": `Layer ${index}`, title: size });
      }));
      if (["picks", "cols", "view", "mode", ...SAMPLING].some((key) => changed.has(key))) chooser.replaceChildren(...state.picks.map(choice));
      const { rows, cols } = sides();
      if (!rows.length || !cols.length) table.replaceChildren(el("p", { className: "empty" }, "Pick at least two images: one row, one column."));
      return render();
    },
  };
}

// Unless chosen, the second half of the picked images.
const columns = () => (state.cols.length ? state.cols : state.picks.slice(Math.ceil(state.picks.length / 2)));

function choice(item) {
  const canvas = imageCanvas("");
  thumbnail(canvas, item);
  const column = columns().includes(item);
  const set = (on) => update({ cols: on ? [...columns(), item] : columns().filter((other) => other !== item) });
  const toggle = (text, on) => button(text, () => set(on), { "aria-pressed": String(column === on), "aria-label": `${labelOf(item)}: ${text}` });
  return el("div", { className: "choice" }, canvas, el("span", {}, labelOf(item)), toggle("row", false), toggle("column", true));
}

function fill(table, rows, cols, images) {
  table.style.gridTemplateColumns = `repeat(${cols.length + 1}, minmax(0, 1fr))`;
  const image = (index, label, name) => {
    const canvas = imageCanvas(label, { className: name });
    show(canvas, images[index]);
    return canvas;
  };
  const top = cols.map((item, k) => image(rows.length + k, `${labelOf(item)}, column`, "edge"));
  const below = rows.flatMap((item, r) => [
    image(r, `${labelOf(item)}, row`, "edge"),
    ...cols.map((other, k) => image(rows.length + cols.length + r * cols.length + k, `${labelOf(item)} with ${labelOf(other)}`, "")),
  ]);
  table.replaceChildren(el("span", {}), ...top, ...below);
}
