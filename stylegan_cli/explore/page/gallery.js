// An endless grid of seeds. Chunks that are far away lose their images, and get them again when they come back.

import { get, newest, post } from "./api.js";
import { model, SAMPLING, sampling, thumbnail } from "./model.js";
import { favorites, isPicked, pick, state, toggleFavorite, unpick, update } from "./state.js";
import { button, complain, el, imageCanvas, labelOf, rove } from "./ui.js";
import { showCommand } from "./tray.js";

const LAST = 2 ** 32 - 1;

export function create(root) {
  const from = el("input", { type: "number", min: 0, max: LAST, step: 1, "aria-label": "First seed" });
  from.addEventListener("change", () => update({ from: Math.min(LAST, Math.max(0, Math.round(Number(from.value) || 0))) }));
  const jump = button("Random", () => update({ from: Math.floor(Math.random() * 1e6) }), { title: "Jump to random seeds" });
  const starred = button("Favorites", () => update({ starred: !state.starred }));
  const bar = el("div", { className: "bar" }, el("label", {}, el("span", {}, "From seed"), from), jump, starred);
  const grid = el("div", { className: "tiles", role: "group", "aria-label": "Images" });
  const end = el("div", { className: "sentinel", "aria-hidden": "true" });
  root.append(bar, grid, end);

  const main = document.getElementById("main"); // what scrolls
  let columns = 1;
  let per = 24; // images of a chunk, in whole rows
  let next = 0; // first seed of the next chunk
  let kept = [];
  rove(grid, ".tile", () => columns);

  function measure() {
    const style = getComputedStyle(document.documentElement);
    const [tile, gap] = ["--tile", "--gap"].map((name) => parseFloat(style.getPropertyValue(name)));
    const before = columns;
    columns = Math.max(1, Math.floor((grid.clientWidth + gap) / (tile + gap)));
    per = columns * Math.max(1, Math.round(24 / columns));
    grid.style.setProperty("--columns", columns);
    return columns !== before;
  }
  new ResizeObserver(() => !root.hidden && measure() && restart()).observe(grid);

  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) fill(target);
        else if (!root.hidden) empty(target);
      }
    },
    { root: main, rootMargin: "1200px" },
  );
  const more = new IntersectionObserver((entries) => entries.some((x) => x.isIntersecting) && append(), { root: main, rootMargin: "800px" });
  more.observe(end);

  function append() {
    if (state.starred || next > LAST || root.hidden) return;
    const count = Math.min(per, LAST + 1 - next);
    addChunk(Array.from({ length: count }, (_, i) => next + i));
    next += count;
    more.unobserve(end);
    more.observe(end); // it may still be in view
  }

  function addChunk(items) {
    const chunk = el("div", { className: "chunk" }, items.map(tile));
    grid.append(chunk);
    near.observe(chunk);
    if (!grid.querySelector('.tile[tabindex="0"]')) grid.querySelector(".tile").tabIndex = 0;
  }

  function restart() {
    measure();
    grid.replaceChildren();
    next = state.from;
    if (state.starred) {
      if (favorites.size) addChunk([...favorites]);
      else grid.append(el("p", { className: "empty" }, "No favorites yet: press the star of an image."));
      return;
    }
    if (kept.length && !state.from) addChunk(kept.slice(0, per));
    append();
  }

  async function listKept() {
    try {
      kept = (await get("/api/items")).items;
    } catch (error) {
      complain(error);
    }
  }

  function mark() {
    for (const element of grid.querySelectorAll(".tile")) {
      const item = JSON.parse(element.dataset.item);
      element.setAttribute("aria-pressed", String(isPicked(item)));
      const star = element.parentElement.querySelector(".star");
      star.setAttribute("aria-pressed", String(favorites.has(item)));
    }
    starred.setAttribute("aria-pressed", String(state.starred));
    if (document.activeElement !== from) from.value = state.from;
  }

  const command = newest(async () => {
    const seeds = Array.from({ length: Math.min(per, LAST + 1 - state.from) }, (_, i) => state.from + i);
    const items = state.starred ? [...favorites] : seeds;
    if (!items.length) return showCommand(root, "");
    const most = 64; // in one call
    showCommand(root, (await post("/api/command", { items: items.slice(0, most), ...sampling() })).command);
  }, complain);

  let begun = false;
  return async (changed) => {
    if (!begun || ["from", "starred"].some((key) => changed.has(key)) || (state.starred && changed.has("favorites"))) {
      if (!begun || changed.has("view")) await listKept();
      begun = true;
      restart();
    } else if (SAMPLING.some((key) => changed.has(key))) {
      for (const chunk of grid.querySelectorAll(".chunk.full")) refill(chunk);
    } else if (changed.has("view")) {
      const before = kept.join();
      await listKept();
      if (kept.join() !== before && !state.from && !state.starred) restart();
    }
    mark();
    command();
  };
}

function tile(item) {
  const canvas = imageCanvas("");
  const label = typeof item === "number" ? String(item) : labelOf(item);
  const toggle = () => (isPicked(item) ? unpick(item) : pick(item));
  const choose = el(
    "button",
    { type: "button", className: "tile", tabIndex: -1, "data-item": JSON.stringify(item), "aria-label": labelOf(item), onclick: toggle },
    canvas,
    el("span", { className: "name" }, label),
  );
  choose.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "f") toggleFavorite(item);
  });
  const star = button("★", () => toggleFavorite(item), { className: "star", tabIndex: -1, "aria-label": `Favorite: ${labelOf(item)}` });
  choose.setAttribute("aria-pressed", String(isPicked(item)));
  star.setAttribute("aria-pressed", String(favorites.has(item)));
  return el("div", { className: "cell" }, choose, star);
}

function fill(chunk) {
  if (chunk.classList.contains("full")) return;
  chunk.classList.add("full");
  refill(chunk);
}

function refill(chunk) {
  const ratio = Math.min(2, devicePixelRatio);
  const size = Math.round((chunk.querySelector(".tile")?.clientWidth || 128) * ratio);
  for (const element of chunk.querySelectorAll(".tile")) thumbnail(element.querySelector("canvas"), JSON.parse(element.dataset.item), size);
}

function empty(chunk) {
  if (!chunk.classList.contains("full")) return;
  chunk.classList.remove("full");
  for (const canvas of chunk.querySelectorAll("canvas")) {
    canvas.width = canvas.height = 1;
    delete canvas.dataset.item;
  }
}
