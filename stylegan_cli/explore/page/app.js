// The page: header, tabs, tray, command, keys. Each view is a module with `create(root)`, which returns its `update`.

import { ApiError, token } from "./api.js";
import { forgetThumbnails, model, openModel, SAMPLING } from "./model.js";
import { canRedo, canUndo, openFavorites, redo, state, subscribe, undo, update, writeAddress } from "./state.js";
import { load, save } from "./store.js";
import { announce, button, complain, copyText, el, select, slider } from "./ui.js";
import { createTray, presentCommand } from "./tray.js";
import * as drag from "./drag.js";
import * as edit from "./edit.js";
import * as gallery from "./gallery.js";
import * as mix from "./mix.js";
import * as move from "./move.js";
import * as photo from "./photo.js";
import * as training from "./training.js";
import * as walk from "./walk.js";

const VIEWS = [
  ["gallery", "Gallery", gallery, () => true],
  ["mix", "Mix", mix, () => model.styles],
  ["edit", "Edit", edit, () => model.styles],
  ["photo", "Photo", photo, () => model.styles],
  ["drag", "Drag", drag, () => model.styles],
  ["walk", "Walk", walk, () => true],
  ["move", "Move", move, () => model.transform],
  ["training", "Training", training, () => model.run],
];
const KEYS = [
  ["1 to 8", "open a view"],
  ["Arrow keys", "move among images; move a slider"],
  ["Space or Enter", "pick the focused image"],
  ["F", "mark it as a favorite"],
  ["Delete", "reset a slider, remove a point"],
  ["Ctrl Z, Ctrl Shift Z or Ctrl Y", "undo, redo"],
  ["?", "show these keys"],
];

const byId = (id) => document.getElementById(id);
const opened = {}; // name of a view -> { root, update }

async function start() {
  showTheme(load("theme", "auto"));
  if (!token) {
    complain(new ApiError("The address lacks its token.", "Open the address that `sgan explore` printed.", 401));
    return;
  }
  await openModel();
  await openFavorites();
  byId("title").textContent = model.title;
  document.documentElement.style.setProperty("--aspect", `${model.width} / ${model.height}`);
  document.documentElement.style.setProperty("--ratio", String(model.width / model.height));
  if (model.width < 128) showWholePixels(model.width);
  document.title = `${model.title} - sgan explore`;
  if (!views().some(([name]) => name === state.view)) update({ view: "gallery" });
  createHeader();
  createTabs();
  createTray(byId("tray"));
  if (model.styles) photo.acceptFiles();
  subscribe(refresh);
  openView();
}

// Sizes of images on the page are such that all their pixels have the same size.
function showWholePixels(width) {
  const { style } = document.documentElement;
  const step = Number.isInteger(devicePixelRatio) ? width / devicePixelRatio : width;
  style.setProperty("--pixels", `${step}px`);
  style.setProperty("--tile", `${Math.ceil(90 / step) * step}px`);
}

const views = () => VIEWS.filter(([, , , fits]) => fits());

// ------------------------------------------------------------------------------------------------ header

function createHeader() {
  const trunc = slider("Truncation", {
    min: -1, max: 1.5, step: 0.05, value: state.trunc, reset: 1, format: (x) => x.toFixed(2),
    onvalue: (x) => update({ trunc: x }, "trunc"),
  });
  const cutoff = el("input", { type: "number", min: 0, max: model.num_ws, placeholder: "all", "aria-label": "Number of truncated styles" });
  cutoff.addEventListener("change", () => update({ cutoff: cutoff.value === "" ? null : Math.min(model.num_ws, Math.max(0, Math.round(cutoff.value))) }));
  const truncated = el("label", {}, el("span", {}, "Styles"), cutoff);
  const past = button("", () => update({ snapshot: null }), { title: "Back to the model that was opened" });
  const controls = [trunc, truncated, past];
  let cls = null;
  if (model.classes) {
    const options = [["", "from the seed"], ...model.classes.map((c) => [c.index, c.name])];
    cls = select("Class", options, state.cls ?? "", (x) => update({ cls: x === "" ? null : Number(x) }));
    controls.push(cls);
  }
  let noise = null;
  if (model.noise) {
    const options = [["const", "constant"], ["random", "random"], ["none", "none"]];
    noise = select("Noise", options, state.noise, (x) => update({ noise: x }));
    controls.push(noise);
  }
  byId("sampling").append(...controls);
  const back = button("Undo", undo, { title: "Undo (Ctrl Z)" });
  const forward = button("Redo", redo, { title: "Redo (Ctrl Shift Z)" });
  const theme = button("Theme", changeTheme, { title: "Light, dark, or as the system" });
  const link = button("Copy link", () => {
    writeAddress();
    copyText(location.href, link);
  }, { title: "Copy a link to this view" });
  byId("actions").append(back, forward, link, theme, button("Keys", showKeys, { title: "All keys (?)" }));
  const follow = () => {
    back.disabled = !canUndo();
    forward.disabled = !canRedo();
    trunc.set(state.trunc);
    truncated.hidden = state.trunc === 1 || !model.styles;
    if (document.activeElement !== cutoff) cutoff.value = state.cutoff ?? "";
    past.hidden = state.snapshot === null;
    past.textContent = `${(state.snapshot ?? "").replace(".safetensors", "")} ×`;
    if (cls) cls.querySelector("select").value = state.cls ?? "";
    if (noise) noise.querySelector("select").value = state.noise;
  };
  subscribe(follow);
  follow();
}

function showTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function changeTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = load("theme", "auto");
  const next = { auto: dark ? "light" : "dark", [dark ? "light" : "dark"]: dark ? "dark" : "light" }[now] ?? "auto";
  save("theme", next);
  showTheme(next);
  announce(`Theme: ${next}`);
}

// -------------------------------------------------------------------------------------------------- views

function createTabs() {
  byId("tabs").append(
    ...views().map(([name, title]) =>
      button(title, () => update({ view: name }), { id: `tab-${name}`, role: "tab", "aria-controls": `view-${name}` }),
    ),
  );
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const names = views().map(([name]) => name);
    const next = names[(names.indexOf(state.view) + step + names.length) % names.length];
    update({ view: next });
    byId(`tab-${next}`).focus();
  });
}

function openView() {
  for (const [name] of views()) {
    const tab = byId(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === state.view));
    tab.tabIndex = name === state.view ? 0 : -1;
  }
  const [name, title, module] = views().find(([key]) => key === state.view) ?? views()[0];
  for (const other of Object.values(opened)) {
    if (!other.root.hidden) other.scroll = byId("main").scrollTop;
    other.root.hidden = true;
  }
  requestAnimationFrame(() => (byId("main").scrollTop = opened[name].scroll ?? 0)); // each view keeps its place
  if (!opened[name]) {
    const root = el("section", { id: `view-${name}`, className: `view ${name}`, role: "tabpanel", "aria-label": title });
    byId("main").append(root);
    opened[name] = { root, update: module.create(root), stale: new Set() };
  }
  const view = opened[name];
  view.root.hidden = false;
  presentCommand(view.root.dataset.command ?? "");
  view.update(new Set(["view", ...view.stale]));
  view.stale.clear();
}

function refresh(changed) {
  if (SAMPLING.some((key) => changed.has(key))) forgetThumbnails();
  for (const [name, view] of Object.entries(opened)) {
    if (name !== state.view) for (const key of changed) view.stale.add(key);
  }
  if (changed.has("view")) openView();
  else opened[state.view]?.update(changed);
}

// --------------------------------------------------------------------------------------------------- keys

function showKeys() {
  const rows = KEYS.map(([keys, what]) => el("tr", {}, el("th", { scope: "row" }, keys), el("td", {}, what)));
  const close = button("Close", () => byId("keys").close());
  byId("keys").replaceChildren(el("h2", { id: "keys-title" }, "Keys"), el("table", {}, el("tbody", {}, rows)), close);
  byId("keys").showModal();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]), textarea, select");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) {
    event.preventDefault();
    if (event.shiftKey) redo();
    else undo();
  }
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "y" && !typing) {
    event.preventDefault();
    redo();
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !model || byId("keys").open) return;
  if (event.key === "?") showKeys();
  const place = Number(event.key) - 1;
  if (views()[place]) update({ view: views()[place][0] });
});

start().catch(complain);
