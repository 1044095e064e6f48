// The same seeds at every snapshot of the run, while it trains.

import { frames, get, newest } from "./api.js";
import { model, sampling } from "./model.js";
import { state, update } from "./state.js";
import { button, complain, el, imageCanvas, labelOf, show } from "./ui.js";
import { showCommand } from "./tray.js";

const POLL = 5000; // milliseconds

export function create(root) {
  const time = el("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Snapshot" });
  const text = el("output", { className: "muted" });
  const live = button("Follow the newest", () => update({ snapshot: null }));
  const bar = el("div", { className: "bar wide" }, time, text, live);
  const grid = el("div", { className: "chunk" });
  root.append(bar, el("div", { className: "tiles" }, grid));

  let snapshots = [];
  const items = () => (state.picks.length ? state.picks : Array.from({ length: Math.min(16, model.limits.images) }, (_, i) => state.from + i));
  const place = () => {
    const found = snapshots.findIndex((s) => s.name === state.snapshot);
    return found < 0 ? snapshots.length - 1 : found;
  };

  const render = newest(async () => {
    if (!snapshots.length) return;
    const chosen = snapshots[place()];
    const wanted = items().slice(0, model.limits.images);
    const { images, command } = await frames("/api/images", { items: wanted, size: 256, ...sampling(), snapshot: chosen.name });
    if (grid.children.length !== wanted.length) {
      grid.replaceChildren(...wanted.map(() => el("div", { className: "cell" }, el("div", { className: "tile" }, imageCanvas("Image"), el("span", { className: "name" })))));
    }
    wanted.forEach((item, i) => {
      const canvas = grid.children[i].querySelector("canvas");
      show(canvas, images[i]);
      canvas.setAttribute("aria-label", `${labelOf(item)} at ${chosen.kimg} kimg`);
      grid.children[i].querySelector(".name").textContent = typeof item === "number" ? item : labelOf(item);
    });
    showCommand(root, command);
  }, complain);

  async function poll() {
    try {
      const answer = await get("/api/snapshots");
      const before = snapshots.map((s) => s.name).join();
      snapshots = answer.snapshots;
      time.max = Math.max(0, snapshots.length - 1);
      refresh(answer.training);
      if (snapshots.map((s) => s.name).join() !== before) await render();
    } catch (error) {
      if (error.status !== 0) complain(error);
    }
  }

  let training = false;
  function refresh(now = training) {
    training = now;
    time.value = place();
    const chosen = snapshots[place()];
    text.textContent = chosen ? `${chosen.kimg} kimg, ${place() + 1} of ${snapshots.length}${training ? ", training" : ""}` : "No snapshot yet";
    live.setAttribute("aria-pressed", String(state.snapshot === null));
  }

  time.addEventListener("input", () => {
    const newestOne = Number(time.value) === snapshots.length - 1;
    update({ snapshot: newestOne ? null : snapshots[Number(time.value)].name }, "snapshot");
  });
  setInterval(() => {
    if (!root.hidden && !document.hidden) poll();
  }, POLL);

  return async (changed) => {
    if (changed.has("view") || !snapshots.length) await poll();
    refresh();
    return render();
  };
}
