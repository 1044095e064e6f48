// The model, and how its images are generated.

import { frames, get } from "./api.js";
import { state } from "./state.js";
import { complain, show } from "./ui.js";

export let model = null;

export async function openModel() {
  model = await get("/api/model");
  return model;
}

// The fields that all calls for images share.
export function sampling() {
  const fields = {};
  if (state.trunc !== 1) fields.trunc = state.trunc;
  if (state.trunc !== 1 && state.cutoff !== null) fields.trunc_cutoff = state.cutoff;
  if (state.cls !== null) fields.class = state.cls;
  if (state.noise !== "const") fields.noise = state.noise;
  if (state.snapshot) fields.snapshot = state.snapshot;
  const [x, y, angle] = state.move;
  if (model.transform && (x || y)) fields.translate = [x, y];
  if (model.transform && angle) fields.rotate = angle;
  return fields;
}

export const SAMPLING = ["trunc", "cutoff", "cls", "noise", "move", "snapshot"]; // the parts of the state in them

export function shownSize(element) {
  return Math.max(32, Math.round(element.clientWidth * devicePixelRatio));
}

// ------------------------------------------------------------------------- small images, several in one call

let waiting = new Map(); // canvas -> { item, size }
let flying = null; // AbortController of the call on its way
let timer = 0;

// Show an item on a canvas. Only the newest request of a canvas counts, and one call at a time is on its way.
export function thumbnail(canvas, item, size = 96) {
  canvas.dataset.item = JSON.stringify(item);
  waiting.set(canvas, { item, size });
  clearTimeout(timer);
  timer = setTimeout(flush, 8);
}

// What is on its way is no longer right: images are generated in another way now.
export function forgetThumbnails() {
  flying?.abort();
}

async function flush() {
  if (flying) return;
  const [first] = [...waiting].filter(([canvas]) => canvas.isConnected && !canvas.closest("[hidden]"));
  if (!first) return waiting.clear();
  const most = Math.min(48, model.limits.images);
  const size = first[1].size;
  const batch = [...waiting].filter(([canvas, x]) => canvas.isConnected && x.size === size).slice(0, most);
  for (const [canvas] of batch) waiting.delete(canvas);
  flying = new AbortController();
  try {
    await request(batch, size, flying.signal);
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  } finally {
    flying = null;
    if (waiting.size) timer = setTimeout(flush, 0);
  }
}

async function request(batch, size, signal) {
  try {
    const { images } = await frames("/api/images", { items: batch.map(([, x]) => x.item), size, ...sampling() }, signal);
    batch.forEach(([canvas, { item }], k) => {
      if (canvas.dataset.item === JSON.stringify(item) && !waiting.has(canvas)) show(canvas, images[k]);
    });
  } catch (error) {
    if (error.status !== 400) throw error;
    if (batch.length === 1) {
      const [canvas] = batch[0];
      canvas.dataset.failed = "1";
      canvas.title = error.message;
      return;
    }
    for (const one of batch) await request([one], size, signal); // one that cannot be shown does not hide the others
  }
}
