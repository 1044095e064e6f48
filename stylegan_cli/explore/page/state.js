// What the page shows: one object, with a history, in the address.

import { load, save } from "./store.js";

const defaults = {
  view: "gallery", // the open tab
  trunc: 1,
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
  snapshot: null, // null: the newest
};
const short = {
  view: "v", trunc: "t", cls: "c", noise: "n", from: "s", starred: "f", picks: "p", item: "i", by: "m", blend: "b",
  mode: "g", cols: "gc", gridLayers: "gl", file: "d", strengths: "e", editLayers: "l", kind: "k", perKey: "wf", fps: "fps",
  loop: "o", move: "xy", snapshot: "at",
};
const HISTORY = 200;

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
  if (!about || about !== last) {
    past.push(JSON.stringify(state));
    if (past.length > HISTORY) past.shift();
  }
  last = about;
  future.length = 0;
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

function travel(source, target) {
  if (!source.length) return;
  target.push(JSON.stringify(state));
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
      const fits = defaults[key] === null || value === null || typeof value === typeof defaults[key];
      if (fits && Array.isArray(value) === Array.isArray(defaults[key] ?? value)) found[key] = value;
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

export const same = (a, b) => a === b;
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

// Favorites persist in this browser, for each model.
let name = "favorites";
export let favorites = new Set();

export function openFavorites(model) {
  name = `favorites ${model}`;
  favorites = new Set(load(name, []));
}

export function toggleFavorite(item) {
  if (!favorites.delete(item)) favorites.add(item);
  save(name, [...favorites]);
  for (const listener of listeners) listener(new Set(["favorites"]));
}
