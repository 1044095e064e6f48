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
  if (state.cls !== null) fields.class = state.cls;
  if (state.noise !== "const") fields.noise = state.noise;
  if (state.snapshot) fields.snapshot = state.snapshot;
  const [x, y, angle] = state.move;
  if (model.transform && (x || y)) fields.translate = [x, y];
  if (model.transform && angle) fields.rotate = angle;
  return fields;
}

export const SAMPLING = ["trunc", "cls", "noise", "move", "snapshot"]; // the parts of the state in them

export function shownSize(element) {
  return Math.max(32, Math.round(element.clientWidth * devicePixelRatio));
}

// ------------------------------------------------------------------------- small images, several in one call

let waiting = [];
let timer = 0;

// Show an item on a canvas. What has changed or gone by the time the image is there is not shown.
export function thumbnail(canvas, item, size = 96) {
  canvas.dataset.item = JSON.stringify(item);
  waiting.push({ canvas, item, size });
  clearTimeout(timer);
  timer = setTimeout(flush, 8);
}

async function flush() {
  const batch = waiting;
  waiting = [];
  const most = Math.min(48, model.limits.images);
  for (let i = 0; i < batch.length; i += most) {
    const part = batch.slice(i, i + most).filter(({ canvas }) => canvas.isConnected);
    if (!part.length) continue;
    try {
      const { images } = await frames("/api/images", { items: part.map((x) => x.item), size: part[0].size, ...sampling() });
      part.forEach(({ canvas, item }, k) => {
        if (canvas.dataset.item === JSON.stringify(item)) show(canvas, images[k]);
      });
    } catch (error) {
      if (part.length === 1) part[0].canvas.dataset.failed = "1";
      else if (error.status === 400) for (const { canvas, item, size } of part) thumbnail(canvas, item, size); // one is wrong
      if (part.length === 1 || error.status !== 400) complain(error);
      if (part.length > 1 && error.status === 400) return alone();
    }
  }
}

// One by one, so that an item that cannot be shown does not hide the others.
async function alone() {
  clearTimeout(timer);
  const batch = waiting;
  waiting = [];
  for (const { canvas, item, size } of batch) {
    try {
      const { images } = await frames("/api/images", { items: [item], size, ...sampling() });
      if (canvas.dataset.item === JSON.stringify(item)) show(canvas, images[0]);
    } catch {
      canvas.dataset.failed = "1";
    }
  }
}
