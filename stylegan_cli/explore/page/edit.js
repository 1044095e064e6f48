// Sliders along directions; before and after.

import { follow, frames, get, jobName, newest, post } from "./api.js";
import { model, sampling, shownSize } from "./model.js";
import { pick, settle, state, update } from "./state.js";
import { announce, button, complain, el, imageCanvas, labelOf, progress, select, show, slider } from "./ui.js";
import { needsItem, showCommand, styleGroups } from "./tray.js";

export function create(root) {
  const canvas = imageCanvas("Edited image", { className: "result" });
  const caption = el("figcaption", { className: "muted" });
  const compare = button("Before", null, { title: "Hold to see the image before the edit" });
  const keep = button("Keep", keepImage, { title: "Write latents and image to the output folder, and pick the image" });
  const resetAll = button("Reset all", () => update({ strengths: {} }), { className: "quiet" });
  const figure = el("figure", {}, canvas, caption, el("div", { className: "bar" }, compare, keep));
  const sliders = el("div", { className: "sliders", role: "group", "aria-label": "Directions" });
  const layers = el("div", { className: "bar", role: "group", "aria-label": "Layers to edit" });
  const chooser = el("div", { className: "bar" });
  const finder = createFinder(async (file) => {
    await list();
    update({ file: file.file, strengths: {} });
    build();
    refreshLayers();
    render();
  });
  const side = el("div", { className: "side" }, chooser, layers, sliders, resetAll, el("details", { className: "finder" }, el("summary", {}, "Find directions"), finder));
  const split = el("div", { className: "split" }, figure, side);
  const empty = el("div");
  root.append(split, empty);

  let files = [];
  let before = false;
  let built = "";
  const file = () => files.find((f) => f.file === state.file) ?? files[0] ?? null;

  function body() {
    const edits = before || !file() ? [] : Object.entries(state.strengths)
      .filter(([, strength]) => strength)
      .map(([index, strength]) => ({ file: file().file, index: Number(index), strength }));
    return { item: state.item, edits, layers: state.editLayers, ...sampling() };
  }

  const render = newest(async () => {
    const { images, command } = await frames("/api/edit", { size: shownSize(canvas), ...body() });
    show(canvas, images[0]);
    canvas.setAttribute("aria-label", `${labelOf(state.item)}, ${before ? "before" : "edited"}`);
    caption.textContent = `${labelOf(state.item)}${before ? ", before" : ""}`;
    if (!before) showCommand(root, command);
  }, complain);

  function hold(on) {
    if (before === on) return;
    before = on;
    compare.setAttribute("aria-pressed", String(on));
    render();
  }
  compare.addEventListener("pointerdown", () => hold(true));
  for (const name of ["pointerup", "pointerleave", "pointercancel", "blur"]) compare.addEventListener(name, () => hold(false));
  compare.addEventListener("keydown", (event) => [" ", "Enter"].includes(event.key) && hold(true));
  compare.addEventListener("keyup", () => hold(false));

  async function keepImage() {
    try {
      const { item } = await post("/api/keep", { kind: "edit", ...body() });
      pick(item);
      announce(`Kept as ${item}`);
    } catch (error) {
      complain(error);
    }
  }

  async function list() {
    try {
      files = (await get("/api/directions")).files;
    } catch (error) {
      complain(error);
    }
    built = "";
  }

  function build() {
    const chosen = file();
    const now = JSON.stringify([files.map((f) => f.file), chosen?.file]);
    if (now === built) return;
    built = now;
    side.querySelector("details").open = !chosen;
    const names = files.map((f) => [f.file, f.file.replace(/^directions-|\.npz$/g, "")]);
    chooser.replaceChildren(...(chosen ? [select("Directions", names, chosen.file, (value) => update({ file: value, strengths: {} }))] : []));
    sliders.replaceChildren(...(chosen?.names ?? []).map((name, index) => {
      const reach = 2 * chosen.strength;
      return slider(name, {
        min: -reach, max: reach, step: reach / 60, value: state.strengths[index] ?? 0, reset: 0, format: (x) => x.toFixed(1),
        onvalue: (x) => update({ file: chosen.file, strengths: { ...state.strengths, [index]: Math.abs(x) < 1e-9 ? 0 : Number(x.toFixed(3)) } }, `strength ${index}`),
      });
    }));
    if (!chosen) sliders.replaceChildren(el("p", { className: "empty" }, "No directions of this model yet."));
  }

  function refreshLayers() {
    const all = model.layers.map((layer) => layer.index);
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    const on = new Set(state.editLayers ?? file()?.layers ?? all);
    const groups = styleGroups().map(([name, indices]) => {
      const pressed = indices.every((i) => on.has(i));
      const toggle = () => {
        const next = all.filter((i) => (indices.includes(i) ? !pressed : on.has(i)));
        if (next.length) update({ editLayers: same(next, file()?.layers ?? all) ? null : next });
      };
      return button(name, toggle, { "aria-pressed": String(pressed), title: `Layers ${indices.join(", ")}` });
    });
    const single = model.layers.map(({ index, name, size }) => {
      const toggle = () => {
        const next = all.filter((i) => (i === index ? !on.has(i) : on.has(i)));
        if (next.length) update({ editLayers: same(next, file()?.layers ?? all) ? null : next });
      };
      return button(String(index), toggle, { className: "small", "aria-pressed": String(on.has(index)), title: `${name}, ${size}`, "aria-label": `Layer ${index}` });
    });
    layers.replaceChildren(el("span", { className: "muted" }, "Layers"), ...groups, ...single);
  }

  let listed = false;
  return async (changed) => {
    split.hidden = state.item === null;
    empty.hidden = state.item !== null;
    if (state.item === null) return needsItem(empty);
    if (!listed || changed.has("view")) await list();
    listed = true;
    build();
    if (["view", "editLayers", "file"].some((key) => changed.has(key))) refreshLayers();
    if (changed.has("strengths")) [...sliders.querySelectorAll(".slider")].forEach((s, index) => s.set(state.strengths[index] ?? 0));
    return render();
  };
}

// A form that finds directions in the background.
function createFinder(onfound) {
  const methods = [["pca", "PCA, from random images"], ["sefa", "SeFa, from the weights"]];
  if (model.codes) methods.push(["codes", "codes of the model"]);
  if (model.labels) methods.push(["labels", "labels of the dataset"]);
  let method = "pca";
  const count = el("input", { type: "number", min: 1, max: 40, value: 10, "aria-label": "Number of directions" });
  const number = el("label", {}, el("span", {}, "Number"), count);
  const choose = select("Method", methods, method, (value) => {
    method = value;
    number.hidden = !["pca", "sefa"].includes(value);
  });
  let controller = null;
  const bar = progress(null, () => controller?.abort());
  const find = button("Find", async () => {
    controller = new AbortController();
    find.disabled = true;
    bar.start();
    try {
      const own = ["pca", "sefa"].includes(method) ? { count: Math.min(40, Math.max(1, Number(count.value) || 10)) } : {};
      const { file } = await follow("/api/find", { job: jobName(), method, ...own }, bar.follow, controller.signal);
      announce(`Found ${file.names.length} directions`);
      settle();
      await onfound(file);
    } catch (error) {
      complain(error);
    } finally {
      find.disabled = false;
      bar.end();
    }
  });
  return el("div", { className: "form" }, choose, number, find, bar);
}
