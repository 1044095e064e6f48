// Points of the image are dragged to other places; a mask says what may move.

import { decoded, follow, frames, jobName, newest, post } from "./api.js";
import { model, SAMPLING, sampling, shownSize } from "./model.js";
import { settle, state, update } from "./state.js";
import { announce, button, complain, el, imageCanvas, labelOf, progress, show, slider } from "./ui.js";
import { createOverlay } from "./overlay.js";
import { needsItem, showCommand } from "./tray.js";

export function create(root) {
  const canvas = imageCanvas("Image to drag", { className: "result" });
  const overlay = createOverlay(model.width, model.height, changed);
  const stage = el("div", { className: "stage" }, canvas, overlay.element);
  const caption = el("figcaption", { className: "muted" });
  const list = el("ol", { className: "points", "aria-label": "Points" });
  const steps = el("input", { type: "number", min: 1, max: 1000, step: 10, value: 200, "aria-label": "Steps" });
  let controller = null;
  let job = null;
  const bar = progress(() => post("/api/stop", { job }).catch(complain), () => controller?.abort());
  const start = button("Start", run, { className: "primary" });
  const add = button("Add a point", () => overlay.add(), { title: "Add a handle in the middle, with its target" });
  const clear = button("Clear points", () => overlay.set([]), { className: "quiet" });
  const modes = [["points", "Points"], ["brush", "Mask"], ["eraser", "Eraser"]].map(([mode, title]) =>
    button(title, () => setMode(mode), { "data-mode": mode }));
  const brush = slider("Brush", { min: 1, max: Math.round(Math.max(model.width, model.height) / 3), step: 1, value: Math.round(model.width / 8), reset: Math.round(model.width / 8), onvalue: (x) => overlay.setBrush(x) });
  const clearMask = button("Clear mask", () => overlay.clearMask(), { className: "quiet" });
  const back = button("Undo drag", () => {
    const { item, points } = before.get(state.item);
    update({ item, points });
  }, { title: "Back to the image before" });
  const before = new Map(); // result of a drag -> what it began with
  const hint = el("p", { className: "muted" }, "Drag on the image from where something is to where it should go, or click both places. Brush a mask over what may move; the rest then stays.");
  const side = el("div", { className: "side" }, hint, el("div", { className: "bar", role: "group", "aria-label": "Tool" }, modes), brush, el("div", { className: "bar" }, add, clear, clearMask), list,
    el("div", { className: "bar" }, el("label", {}, el("span", {}, "Steps"), steps), start, back), bar);
  const split = el("div", { className: "split" }, el("figure", {}, stage, caption), side);
  const empty = el("div");
  root.append(split, empty);
  setMode("points");
  overlay.setBrush(Math.round(model.width / 8));

  function setMode(mode) {
    overlay.setMode(mode);
    for (const element of modes) element.setAttribute("aria-pressed", String(element.dataset.mode === mode));
    brush.hidden = mode === "points";
  }

  const render = newest(async () => {
    const { images, command } = await frames("/api/images", { items: [state.item], size: shownSize(canvas), ...sampling() });
    show(canvas, images[0]);
    canvas.setAttribute("aria-label", labelOf(state.item));
    caption.textContent = labelOf(state.item);
    showCommand(root, before.get(state.item)?.command ?? command);
  }, complain);

  const numbers = (points) => points.map(({ x, y, tx, ty }) => [x, y, tx, ty].map((value) => Number(value.toFixed(2))));
  const named = (points) => points.map(([x, y, tx, ty]) => ({ x, y, tx, ty }));

  function changed(points) {
    if (!job) update({ points: numbers(points) }, "points");
    start.disabled = !points.length || Boolean(job);
    if (list.contains(document.activeElement)) return;
    list.replaceChildren(...points.map((point, k) => {
      const field = (name, axis, limit) => {
        const input = el("input", { type: "number", min: 0, max: limit, step: 0.5, value: Number(point[axis].toFixed(1)), "aria-label": `Point ${k + 1}: ${name}` });
        input.addEventListener("change", () => overlay.move(k, { [axis]: Math.min(limit, Math.max(0, Number(input.value) || 0)) }));
        return input;
      };
      const { width, height } = model;
      return el("li", {}, field("x", "x", width), field("y", "y", height), el("span", { "aria-hidden": "true" }, "→"), field("target x", "tx", width), field("target y", "ty", height),
        button("×", () => overlay.remove(k), { className: "quiet", "aria-label": `Remove point ${k + 1}` }));
    }));
  }

  async function run() {
    controller = new AbortController();
    const begun = { item: state.item, points: state.points };
    job = jobName();
    start.disabled = true;
    bar.start();
    overlay.lock(true);
    const body = { job, ...begun, size: shownSize(canvas), mask: overlay.mask(), steps: Math.min(1000, Math.max(1, Number(steps.value) || 200)), ...sampling() };
    try {
      const result = await follow("/api/drag", body, (event) => {
        bar.follow(event);
        if (event.image) show(canvas, decoded(event.image));
        if (event.points) overlay.place(event.points);
        if (event.distance !== undefined) caption.textContent = `step ${event.done}, ${event.distance.toFixed(1)} pixels to go`;
      }, controller.signal);
      show(canvas, decoded(result.image));
      const farthest = Math.max(...result.distance);
      announce(`Dragged, ${farthest.toFixed(1)} pixels from the target`);
      before.set(result.item, { ...begun, command: result.command });
      settle();
      const points = result.points.map(([x, y], k) => [x, y, begun.points[k][2], begun.points[k][3]]);
      const picks = [...state.picks, result.item];
      // Whoever works elsewhere meanwhile keeps the current image.
      update(state.item === begun.item ? { picks, item: result.item, points } : { picks });
    } catch (error) {
      complain(error);
    } finally {
      job = null;
      bar.end();
      overlay.lock(false);
      overlay.set(named(state.points));
      render();
    }
  }

  let last;
  changed([]);
  return (what) => {
    split.hidden = state.item === null;
    empty.hidden = state.item !== null;
    if (state.item === null) return needsItem(empty);
    back.hidden = !before.has(state.item);
    if (!job && JSON.stringify(numbers(overlay.points())) !== JSON.stringify(state.points)) overlay.set(named(state.points));
    const other = last !== state.item;
    last = state.item;
    if (other || ["view", "item", ...SAMPLING].some((key) => what.has(key))) return job ? null : render();
  };
}
