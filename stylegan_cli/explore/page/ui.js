// Building blocks: elements, images, sliders, messages, progress.

import { settle } from "./state.js";

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-") && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const labelOf = (item) => (typeof item === "number" ? `Seed ${item}` : item.replace(/\.npz$/, "").replace("/", ", "));

// A canvas that shows one image. Without a label, what is around it says what it is.
export function imageCanvas(label, properties = {}) {
  const named = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  return el("canvas", { width: 1, height: 1, ...named, ...properties });
}

export function show(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
  }
  canvas.classList.toggle("pixels", image.width < 128);
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.dataset.ready = "1";
}

export function button(text, onclick, properties = {}) {
  return el("button", { type: "button", onclick, ...properties }, text);
}

// A slider with its name and value. `onvalue` is called while it moves; a double click resets it.
export function slider(label, { min, max, step, value, reset, format = (x) => x, onvalue, ...properties }) {
  const output = el("output", {}, String(format(value)));
  const input = el("input", { type: "range", min, max, step, "aria-label": label, ...properties });
  input.value = value;
  fillTrack(input, reset ?? 0);
  const changed = () => {
    output.textContent = format(Number(input.value));
    fillTrack(input, reset ?? 0);
    onvalue(Number(input.value));
  };
  input.addEventListener("input", changed);
  input.addEventListener("change", settle);
  const root = el("label", { className: "slider" }, el("span", {}, label), input, output);
  root.set = (x) => {
    input.value = x;
    output.textContent = format(x);
    fillTrack(input, reset ?? 0);
  };
  const restore = () => {
    root.set(reset ?? 0);
    settle();
    onvalue(reset ?? 0);
  };
  input.addEventListener("dblclick", restore);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Delete" || event.key === "Backspace") restore();
  });
  return root;
}

// The track is filled from the value that changes nothing to the present one.
function fillTrack(input, neutral) {
  const [min, max] = [Number(input.min), Number(input.max)];
  const place = (x) => (100 * (Math.min(max, Math.max(min, x)) - min)) / (max - min);
  const ends = [place(neutral), place(Number(input.value))];
  input.style.setProperty("--low", `${Math.min(...ends)}%`);
  input.style.setProperty("--high", `${Math.max(...ends)}%`);
}

export function select(label, options, value, onvalue, properties = {}) {
  const input = el(
    "select",
    { "aria-label": label, ...properties },
    options.map(([key, text]) => el("option", { value: String(key) }, text)),
  );
  input.value = String(value);
  input.addEventListener("change", () => onvalue(input.value));
  return el("label", { className: "select" }, el("span", {}, label), input);
}

// Copy a text, and say so on the button. Pages that are not served from this machine may not use the clipboard.
export async function copyText(text, source) {
  const before = source.textContent;
  try {
    await navigator.clipboard.writeText(text);
    source.textContent = "Copied";
    announce("Copied");
  } catch {
    prompt("Copy this text:", text);
  }
  setTimeout(() => (source.textContent = before), 1500);
}

// -------------------------------------------------------------------------------------------------- messages

export function complain(error) {
  if (error.name === "AbortError") return;
  if (!error.status && error.status !== 0) console.error(error);
  const hint = error.hint ? el("small", {}, error.hint) : null;
  const close = button("Dismiss", () => message.remove(), { className: "quiet" });
  const message = el("div", { className: "message" }, el("p", {}, error.message, hint), close);
  const messages = document.getElementById("messages");
  for (const old of [...messages.children]) if (old.textContent === message.textContent) old.remove();
  messages.append(message);
  while (messages.children.length > 3) messages.firstChild.remove();
}

export function announce(text) {
  document.getElementById("live").textContent = text;
}

// Progress of long work, with buttons to stop or cancel it.
export function progress(onstop, oncancel) {
  const bar = el("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const text = el("span", { className: "muted" });
  const stop = onstop ? button("Stop and keep", onstop) : null;
  const root = el("div", { className: "progress", hidden: true }, bar, text, stop, button("Cancel", oncancel));
  let said = 0;
  root.start = () => {
    said = 0;
    root.hidden = false;
    bar.removeAttribute("value");
    text.textContent = "Waiting";
  };
  root.follow = ({ what, done, total, figure }) => {
    bar.max = total || 1;
    bar.value = done;
    text.textContent = `${what} ${done} of ${total}${figure ? `, ${figure.replace("=", " ")}` : ""}`;
    const quarter = Math.floor((4 * done) / (total || 1));
    if (quarter > said) announce(text.textContent); // not each step: a screen reader could not follow
    said = quarter;
  };
  root.end = () => {
    root.hidden = true;
  };
  return root;
}

// Arrow keys move the focus among the elements of a grid; only one of them is reached by Tab.
export function rove(root, selector, columns = () => 1) {
  root.addEventListener("keydown", (event) => {
    const elements = [...root.querySelectorAll(selector)];
    const place = elements.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
    if (place < 0 || !step || !elements[place + step]) return;
    event.preventDefault();
    elements[place].tabIndex = -1;
    elements[place + step].tabIndex = 0;
    elements[place + step].focus();
  });
  root.addEventListener("focusin", (event) => {
    if (!event.target.matches(selector)) return;
    for (const other of root.querySelectorAll(`${selector}[tabindex="0"]`)) other.tabIndex = -1;
    event.target.tabIndex = 0;
  });
}

export function download(content, name) {
  const link = el("a", { href: URL.createObjectURL(content), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
