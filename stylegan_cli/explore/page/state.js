// What the page shows: one object, with a history, in the address.

import { get, post } from "./api.js";

const defaults = {
  view: "gallery", // the open tab
  trunc: 1,
  cutoff: null, // number of truncated styles; null: all
  cls: null, // class; null: from the seed
  noise: "const",
  from: 0, // first seed of the gallery
  starred: false, // the gallery shows favorites only
  picks: [], // items: seeds and names of files
  item: null, // the current one
  by: [], // Mix: for each layer the position in `picks` of the image that it comes from
  blend: 1,
  mode: "layers", // Mix: or 'grid'
  cols: [], // Mix, grid: the picks that are columns
  gridLayers: null, // null: the coarse ones
  file: null, // Edit: directions
  strengths: {}, // Edit: by index of the direction
  editLayers: null, // null: those of the file
  kind: "spline",
  perKey: 45,
  fps: 30,
  loop: true,
  move: [0, 0, 0], // right, down, counterclockwise
  snapshot: null, // null: the model that was opened
  points: [], // Drag: [x, y, target x, target y]
  frame: 0, // Walk
};
const short = {
  view: "v", trunc: "t", cutoff: "tc", cls: "c", noise: "n", from: "s", starred: "f", picks: "p", item: "i", by: "m", blend: "b",
  mode: "g", cols: "gc", gridLayers: "gl", file: "d", strengths: "e", editLayers: "l", kind: "k", perKey: "wf", fps: "fps",
  loop: "o", move: "xy", snapshot: "at", points: "dp", frame: "wi",
};
const HISTORY = 200;

// What a link may contain.
const isNumber = (low, high) => (x) => typeof x === "number" && x >= low && x <= high;
const isItem = (x) => (typeof x === "string" ? /^[\w][\w.+/-]*$/.test(x) : Number.isInteger(x) && x >= 0 && x < 2 ** 32);
const isText = (x) => typeof x === "string";
const isFlag = (x) => typeof x === "boolean";
const isIndex = (x) => Number.isInteger(x) && x >= 0 && x < 1000;
const listOf = (fits, most = 500) => (x) => Array.isArray(x) && x.length <= most && x.every(fits);
const maybe = (fits) => (x) => x === null || fits(x);
const FITS = {
  view: isText, trunc: isNumber(-4, 4), cutoff: maybe(isIndex), cls: maybe(isIndex), noise: (x) => ["const", "random", "none"].includes(x),
  from: (x) => isItem(x) && !isText(x), starred: isFlag, picks: listOf(isItem), item: maybe(isItem), by: listOf(isIndex), blend: isNumber(0, 1),
  mode: (x) => ["layers", "grid"].includes(x), cols: listOf(isItem), gridLayers: maybe(listOf(isIndex)), file: maybe(isText),
  strengths: (x) => x !== null && typeof x === "object" && Object.values(x).every(isNumber(-100, 100)), editLayers: maybe(listOf(isIndex)),
  kind: (x) => ["spline", "linear", "slerp"].includes(x), perKey: isNumber(1, 600), fps: isNumber(1, 60), loop: isFlag,
  move: (x) => listOf(isNumber(-3600, 3600), 3)(x) && x.length === 3, snapshot: maybe(isText),
  points: listOf((p) => listOf(isNumber(0, 1e5), 4)(p) && p.length === 4, 32), frame: isNumber(0, 1e6),
};
const UNDONE = Object.keys(defaults).filter((key) => !["view", "frame"].includes(key)); // part of the history

export const state = { ...structuredClone(defaults), ...parse(location.hash) };

const listeners = new Set();
const past = [];
const future = [];
let last = null; // what the newest entry of the history is about

export function subscribe(listener) {
  listeners.add(listener);
}

// Change the state. Changes about the same thing, such as one slider that moves, are one step of undo.
export function update(patch, about = null) {
  const changed = Object.keys(patch).filter((key) => JSON.stringify(patch[key]) !== JSON.stringify(state[key]));
  if (!changed.length) return;
  if (changed.some((key) => UNDONE.includes(key)) && (!about || about !== last)) {
    past.push(entry());
    if (past.length > HISTORY) past.shift();
  }
  if (changed.some((key) => UNDONE.includes(key))) {
    last = about;
    future.length = 0;
  }
  Object.assign(state, patch);
  publish(changed);
}

// The next change is a new step of undo.
export function settle() {
  last = null;
}

export const undo = () => travel(past, future);
export const redo = () => travel(future, past);
export const canUndo = () => past.length > 0;
export const canRedo = () => future.length > 0;

const entry = () => JSON.stringify(Object.fromEntries(UNDONE.map((key) => [key, state[key]])));

function travel(source, target) {
  if (!source.length) return;
  target.push(entry());
  const before = { ...state };
  Object.assign(state, JSON.parse(source.pop()));
  last = null;
  publish(Object.keys(state).filter((key) => JSON.stringify(before[key]) !== JSON.stringify(state[key])));
}

// Browsers refuse to change the address hundreds of times in a few seconds. The first change is written at once, since a
// page that is reloaded no longer may.
const PAUSE = 200; // milliseconds
let timer = 0;
let written = -PAUSE;
export function writeAddress() {
  clearTimeout(timer);
  written = performance.now();
  history.replaceState(null, "", location.pathname + location.search + serialize());
}
window.addEventListener("pagehide", writeAddress);

function publish(changed) {
  clearTimeout(timer);
  if (performance.now() - written >= PAUSE) writeAddress();
  else timer = setTimeout(writeAddress, PAUSE);
  for (const listener of listeners) listener(new Set(changed));
}

export function serialize() {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    const text = JSON.stringify(value);
    if (text !== JSON.stringify(defaults[key])) parts.set(short[key], text.replaceAll('"', "'"));
  }
  return "#" + parts.toString().replaceAll("%2C", ",").replaceAll("%5B", "[").replaceAll("%5D", "]").replaceAll("%27", "'");
}

function parse(hash) {
  const parts = new URLSearchParams(hash.slice(1));
  const found = {};
  for (const [key, name] of Object.entries(short)) {
    if (!parts.has(name)) continue;
    try {
      const value = JSON.parse(parts.get(name).replaceAll("'", '"'));
      if (FITS[key](value)) found[key] = value;
    } catch {
      // another program's address
    }
  }
  return found;
}

window.addEventListener("hashchange", () => {
  Object.assign(state, structuredClone(defaults), parse(location.hash));
  for (const listener of listeners) listener(new Set(Object.keys(state)));
});

// ------------------------------------------------------------------------------------------ picked images

export const isPicked = (item) => state.picks.includes(item);

export function pick(item) {
  if (!isPicked(item)) update({ picks: [...state.picks, item], item });
  else update({ item });
}

export function unpick(item) {
  const place = state.picks.indexOf(item);
  if (place < 0) return;
  const picks = state.picks.filter((other) => other !== item);
  const by = state.by.map((k) => (k === place ? 0 : k > place ? k - 1 : k));
  update({ picks, by, cols: state.cols.filter((other) => other !== item), item: state.item === item ? (picks[0] ?? null) : state.item });
}

// Favorites persist in the output folder, for each model or run.
export let favorites = new Set();

export async function openFavorites() {
  favorites = new Set((await get("/api/favorites")).items);
}

export async function toggleFavorite(item) {
  if (!favorites.delete(item)) favorites.add(item);
  post("/api/favorites", { items: [...favorites] }).catch((error) => console.error(error.message));
  for (const listener of listeners) listener(new Set(["favorites"]));
}
