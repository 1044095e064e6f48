// From one picked image to the next: preview and export.

import { blob, follow, frames, jobName, newest } from "./api.js";
import { model, SAMPLING, sampling, shownSize, thumbnail } from "./model.js";
import { pick, state, unpick, update } from "./state.js";
import { announce, button, complain, download, el, imageCanvas, labelOf, progress, select, show } from "./ui.js";
import { showCommand } from "./tray.js";

const KINDS = [["spline", "smooth (spline)"], ["linear", "straight (linear)"], ["slerp", "great circles (slerp)"]];

export function create(root) {
  const canvas = imageCanvas("Frame of the walk", { className: "result" });
  const caption = el("figcaption", { className: "muted" });
  const scrub = el("input", { type: "range", min: 0, max: 1, value: 0, step: 1, "aria-label": "Frame" });
  const play = button("Play", () => setPlaying(!playing));
  const keys = el("ol", { className: "timeline", "aria-label": "Key images" });
  const fields = {};
  const number = (label, key, min, max) => {
    const input = el("input", { type: "number", min, max, value: state[key], "aria-label": label });
    fields[key] = input;
    input.addEventListener("change", () => update({ [key]: Math.min(max, Math.max(min, Math.round(Number(input.value) || min))) }));
    return el("label", {}, el("span", {}, label), input);
  };
  const kind = select("Way", KINDS, state.kind, (value) => update({ kind: value }));
  const loop = el("input", { type: "checkbox", checked: state.loop });
  loop.addEventListener("change", () => update({ loop: loop.checked }));
  const settings = el("div", { className: "form" }, kind, number("Frames from key to key", "perKey", 1, model.limits.frames), number("Frames per second", "fps", 1, 60),
    el("label", {}, loop, el("span", {}, "Loop")));
  let controller = null;
  const bar = progress(null, () => controller?.abort());
  const formats = ["webp", "gif", "mp4"].map((format) => button(format === "webp" ? "WebP" : format.toUpperCase(), () => write(format)));
  const exports = el("div", { className: "bar", role: "group", "aria-label": "Export" }, el("span", { className: "muted" }, "Export"), ...formats, bar);
  const figure = el("figure", {}, canvas, caption, el("div", { className: "bar" }, play, scrub));
  const side = el("div", { className: "side" }, keys, settings, exports);
  const split = el("div", { className: "split" }, figure, side);
  const empty = el("div");
  root.append(split, empty);

  let playing = false;
  let began = 0;
  let count = 1;

  const body = () => {
    const { translate, rotate, noise, ...fields } = sampling(); // in a video, a view is a motion
    return { keys: state.picks, kind: state.kind, frames: state.perKey, loop: state.loop, ...fields };
  };
  const render = newest(async () => {
    const index = Number(scrub.value);
    const { images, command, frames: all } = await frames("/api/walk", { index, size: shownSize(canvas), ...body() });
    show(canvas, images[0]);
    count = all;
    scrub.max = all - 1;
    caption.textContent = `Frame ${Math.min(index, all - 1) + 1} of ${all}, ${(all / state.fps).toFixed(1)} s`;
    showCommand(root, command);
  }, (error) => {
    setPlaying(false);
    complain(error);
  });

  function setPlaying(on) {
    if (playing === on) return;
    playing = on;
    play.textContent = on ? "Pause" : "Play";
    began = performance.now() - (Number(scrub.value) / state.fps) * 1000;
    if (on) requestAnimationFrame(tick);
  }

  function tick(now) {
    if (!playing || root.hidden) return setPlaying(false);
    let index = Math.floor(((now - began) / 1000) * state.fps);
    if (index >= count) {
      if (!state.loop) {
        scrub.value = count - 1;
        render();
        return setPlaying(false);
      }
      index %= count;
    }
    if (index !== Number(scrub.value)) {
      scrub.value = index;
      render();
    }
    requestAnimationFrame(tick);
  }

  async function write(format) {
    controller = new AbortController();
    formats.forEach((b) => (b.disabled = true));
    bar.start();
    try {
      const request = { job: jobName(), fps: state.fps, format, ...body() };
      const { file, command } = await follow("/api/export", request, bar.follow, controller.signal);
      showCommand(root, command);
      announce(`Written: ${file}`);
      download(await blob(`/api/files/${file}`), file);
    } catch (error) {
      complain(error);
    } finally {
      formats.forEach((b) => (b.disabled = false));
      bar.end();
    }
  }

  function shift(place, step) {
    const picks = [...state.picks];
    const [item] = picks.splice(place, 1);
    picks.splice(place + step, 0, item);
    const swap = { [place]: place + step, [place + step]: place };
    update({ picks, by: state.by.map((k) => swap[k] ?? k) });
  }

  function refreshKeys() {
    keys.replaceChildren(...state.picks.map((item, place) => {
      const key = imageCanvas("");
      thumbnail(key, item);
      const go = el("button", { type: "button", className: "key", title: `Go to ${labelOf(item)}`, "aria-label": `Go to ${labelOf(item)}`, onclick: () => { scrub.value = place * state.perKey; render(); } }, key);
      return el("li", {}, go, el("div", { className: "bar" },
        button("←", () => shift(place, -1), { disabled: place === 0, "aria-label": `${labelOf(item)}: earlier` }),
        button("→", () => shift(place, 1), { disabled: place === state.picks.length - 1, "aria-label": `${labelOf(item)}: later` }),
        button("×", () => unpick(item), { "aria-label": `Remove ${labelOf(item)}` })));
    }));
  }

  scrub.addEventListener("input", () => {
    setPlaying(false);
    render();
  });
  return (changed) => {
    const ready = state.picks.length > 1;
    split.hidden = !ready;
    empty.hidden = ready;
    if (!ready) {
      setPlaying(false);
      const few = state.picks.length ? "Pick one more image: a walk needs two." : "Pick two or more images in the gallery: they are the key images of the walk.";
      empty.replaceChildren(el("p", { className: "empty" }, few), button("Open the gallery", () => update({ view: "gallery" })),
        button("Take seeds 0, 1 and 2", () => [0, 1, 2].forEach(pick), { className: "quiet" }));
      return null;
    }
    if (["view", "picks", ...SAMPLING].some((key) => changed.has(key))) refreshKeys();
    kind.querySelector("select").value = state.kind;
    loop.checked = state.loop;
    for (const [key, input] of Object.entries(fields)) input.value = state[key];
    if (state.picks.length > model.limits.keys) {
      return complain(new Error(`A walk has at most ${model.limits.keys} key images: remove ${state.picks.length - model.limits.keys}.`));
    }
    return render();
  };
}
