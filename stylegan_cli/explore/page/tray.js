// The picked images, which all views share, and the line with the command.

import { model, SAMPLING, thumbnail } from "./model.js";
import { pick, state, subscribe, unpick, update } from "./state.js";
import { button, copyText, el, imageCanvas, labelOf, rove } from "./ui.js";

export function createTray(root) {
  const list = el("ul", { "aria-label": "Picked images" });
  const hint = el("p", { className: "muted" }, "Click images in the gallery to pick them.");
  const clear = button("Clear", () => update({ picks: [], item: null, by: [], cols: [] }), { className: "quiet" });
  root.append(list, hint, clear);
  rove(list, "button.pick");

  const refresh = (changed) => {
    const relevant = ["picks", "item", ...SAMPLING].some((key) => changed.has(key));
    if (!relevant) return;
    const known = new Map([...list.children].map((entry) => [entry.dataset.item, entry]));
    const again = SAMPLING.some((key) => changed.has(key));
    list.replaceChildren(
      ...state.picks.map((item) => {
        const found = known.get(JSON.stringify(item));
        const entry = found ?? create(item);
        const chosen = entry.querySelector("button.pick");
        chosen.setAttribute("aria-pressed", String(item === state.item));
        return entry;
      }),
    );
    for (const entry of list.children) {
      if (again || !known.has(entry.dataset.item)) thumbnail(entry.querySelector("canvas"), JSON.parse(entry.dataset.item));
    }
    const first = list.querySelector("button.pick");
    if (first && !list.querySelector('button.pick[tabindex="0"]')) first.tabIndex = 0;
    hint.hidden = state.picks.length > 0;
    clear.hidden = !state.picks.length;
  };
  subscribe(refresh);
  refresh(new Set(["picks"]));
}

function create(item) {
  const canvas = imageCanvas("");
  const choose = el(
    "button",
    { type: "button", className: "pick", tabIndex: -1, title: labelOf(item), "aria-label": `${labelOf(item)}, make it the current image`, onclick: () => pick(item) },
    canvas,
    el("span", {}, typeof item === "number" ? String(item) : labelOf(item)),
  );
  choose.addEventListener("keydown", (event) => {
    if (event.key === "Delete") unpick(item);
  });
  const remove = button("×", () => unpick(item), { className: "remove", "aria-label": `Remove ${labelOf(item)}` });
  return el("li", { "data-item": JSON.stringify(item) }, choose, remove);
}

// The command that makes what a view shows; that of a hidden view waits until it is opened.
export function showCommand(view, text) {
  view.dataset.command = text;
  if (!view.hidden) presentCommand(text);
}

export function presentCommand(text) {
  const root = document.getElementById("command");
  const lines = text.split("\n").filter(Boolean);
  if (root.dataset.text === text) return;
  root.dataset.text = text;
  const copy = button("Copy", () => copyText(lines.join("\n"), copy));
  const code = el("code", { tabIndex: 0, role: "region", "aria-label": "Command" }, lines.map((line) => el("span", {}, line)));
  root.replaceChildren(...(lines.length ? [code, copy] : []));
}

// A row of buttons to choose the current image, where a view needs one.
export function needsItem(root) {
  root.replaceChildren(
    el("p", { className: "empty" }, "Pick an image in the gallery first."),
    button("Open the gallery", () => update({ view: "gallery" })),
    button("Take seed 0", () => pick(0), { className: "quiet" }),
  );
}

export const styleGroups = () => Object.entries(model.groups);
