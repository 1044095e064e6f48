// A photo in the latent space: by the encoder at once, by projection with live progress.

import { decoded, follow, jobName, post, upload } from "./api.js";
import { model } from "./model.js";
import { pick, state, update } from "./state.js";
import { announce, button, complain, el, imageCanvas, progress, select, show } from "./ui.js";
import { showCommand } from "./tray.js";

let receive = null; // once the view exists
let waiting = null; // a file that came before

// An image that is dropped or pasted anywhere opens this view.
export function acceptFiles() {
  const arrive = (files, event) => {
    const file = [...(files ?? [])].find((f) => f.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    mark(false);
    if (receive) receive(file);
    else waiting = file;
    update({ view: "photo" });
  };
  const mark = (on) => document.querySelector(".zone")?.classList.toggle("over", on);
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) mark(false);
  });
  document.addEventListener("drop", (event) => arrive(event.dataTransfer?.files, event));
  document.addEventListener("paste", (event) => arrive(event.clipboardData?.files, event));
}

export function create(root) {
  const input = el("input", { type: "file", accept: "image/*", className: "hidden", tabIndex: -1, "aria-label": "Image file" });
  const zone = el("button", { type: "button", className: "zone", onclick: () => input.click() },
    el("strong", {}, "Choose an image, or drop or paste one here"),
    el("span", { className: "muted" }, "PNG, JPEG or WebP. An image that ", el("code", {}, "sgan generate"), " wrote restores its seed and settings."));
  const target = imageCanvas("The photo, as the model sees it");
  const found = imageCanvas("The image found");
  const caption = el("figcaption", { className: "muted" }, "found");
  const pair = el("div", { className: "pair", hidden: true },
    el("figure", {}, target, el("figcaption", { className: "muted" }, "photo")), el("figure", {}, found, caption));
  const steps = el("input", { type: "number", min: 10, max: model.limits.steps, step: 10, value: 400, "aria-label": "Steps" });
  let space = "w+";
  let init = model.encoder ? "encoder" : "";
  const spaces = select("Latent space", [["w+", "W+, closer"], ["w", "W, easier to edit"]], space, (value) => (space = value));
  const starts = model.encoder ? select("Start", [["encoder", "from the encoder"], ["", "from the mean"]], init, (value) => (init = value)) : null;
  let controller = null;
  let job = null;
  const bar = progress(() => post("/api/stop", { job }).catch(complain), () => controller?.abort());
  const go = button("Project", project);
  const use = button("Use it", () => item && pick(item), { hidden: true, title: "Pick the image for the other views" });
  const restore = button("Restore seed and settings", restoreSettings, { hidden: true, className: "primary" });
  const form = el("div", { className: "form", hidden: true }, el("label", {}, el("span", {}, "Steps"), steps), spaces, starts, go, use, restore, bar);
  root.append(zone, input, pair, form);

  let photo = null;
  let item = null;
  let restored = null;

  function shown(result, how) {
    item = result.item;
    show(found, decoded(result.image));
    caption.textContent = `${how}, PSNR ${result.psnr} dB`;
    use.hidden = false;
    showCommand(root, result.command);
    announce(caption.textContent);
  }

  let latest = 0;
  async function open(file) {
    if (!file) return;
    const own = ++latest; // only the newest photo is shown
    if (file.size > model.limits.upload_bytes) return complain(new Error(`${file.name} is larger than ${model.limits.upload_bytes / 2 ** 20} MB.`));
    controller?.abort();
    try {
      const answer = await upload(file);
      if (own !== latest) return;
      photo = answer.photo;
      restored = answer.restored;
      item = null;
      pair.hidden = form.hidden = false;
      use.hidden = true;
      restore.hidden = !restored;
      show(target, decoded(answer.image));
      found.width = found.height = 1;
      caption.textContent = model.encoder ? "" : "press Project";
      if (model.encoder) {
        const result = await post("/api/encode", { photo });
        if (own !== latest) return;
        shown(result, "encoder");
        take();
      }
    } catch (error) {
      complain(error);
    }
  }

  async function project() {
    controller = new AbortController();
    job = jobName();
    go.disabled = true;
    bar.start();
    const onevent = (event) => {
      bar.follow(event);
      if (event.image) show(found, decoded(event.image));
      if (event.what === "steps") caption.textContent = `step ${event.done}`;
    };
    const count = Math.min(model.limits.steps, Math.max(1, Number(steps.value) || 400));
    try {
      const body = { job, photo, steps: count, space, ...(init ? { init } : {}) };
      shown(await follow("/api/project", body, onevent, controller.signal), "projection");
      take();
    } catch (error) {
      complain(error);
    } finally {
      go.disabled = false;
      bar.end();
    }
  }

  // Whoever works elsewhere meanwhile keeps the current image.
  function take() {
    if (!root.hidden) pick(item);
    else if (!state.picks.includes(item)) update({ picks: [...state.picks, item] });
  }

  function restoreSettings() {
    const { item: seed, trunc, trunc_cutoff: cutoff, class: cls, noise, translate, rotate } = restored;
    update({ trunc, cutoff, cls, noise, move: [...(translate ?? [0, 0]), rotate ?? 0], from: seed, view: "gallery", starred: false });
    pick(seed);
  }

  input.addEventListener("change", () => {
    open(input.files[0]);
    input.value = "";
  });
  receive = open;
  return () => {
    const file = waiting;
    waiting = null;
    open(file);
  };
}
