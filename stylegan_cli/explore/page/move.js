// Pan by dragging, rotate with a slider or with two fingers, for models whose input can be moved.

import { frames, newest } from "./api.js";
import { model, sampling, shownSize } from "./model.js";
import { settle, state, update } from "./state.js";
import { button, complain, el, imageCanvas, labelOf, show, slider } from "./ui.js";
import { needsItem, showCommand } from "./tray.js";

export function create(root) {
  const canvas = imageCanvas("Image to move", { className: "result movable", tabIndex: 0 });
  const caption = el("figcaption", { className: "muted" }, "Drag to pan; Shift and drag, or two fingers, to rotate.");
  const set = (patch, about) => {
    const [x, y, angle] = [...state.move].map((value, i) => patch[i] ?? value);
    update({ move: [Number(x.toFixed(3)), Number(y.toFixed(3)), Number(angle.toFixed(1))] }, about);
  };
  const sliders = [
    slider("Right", { min: -1, max: 1, step: 0.01, value: state.move[0], format: (x) => x.toFixed(2), onvalue: (x) => set([x], "x") }),
    slider("Down", { min: -1, max: 1, step: 0.01, value: state.move[1], format: (x) => x.toFixed(2), onvalue: (x) => set([undefined, x], "y") }),
    slider("Rotation", { min: -180, max: 180, step: 1, value: state.move[2], format: (x) => `${x}°`, onvalue: (x) => set([undefined, undefined, x], "angle") }),
  ];
  const reset = button("Reset", () => update({ move: [0, 0, 0] }));
  const split = el("div", { className: "split" }, el("figure", {}, canvas, caption), el("div", { className: "side" }, ...sliders, reset));
  const empty = el("div");
  root.append(split, empty);

  const pointers = new Map();
  const angleOf = () => {
    const [a, b] = [...pointers.values()];
    return (Math.atan2(b.y - a.y, b.x - a.x) * 180) / Math.PI;
  };
  const around = (event) => {
    const box = canvas.getBoundingClientRect();
    return (Math.atan2(event.clientY - box.top - box.height / 2, event.clientX - box.left - box.width / 2) * 180) / Math.PI;
  };
  const turned = (from, to) => ((state.move[2] + from - to + 540) % 360) - 180; // counterclockwise on the screen

  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    settle();
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    if (pointers.size === 2) {
      const from = angleOf();
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      return set([undefined, undefined, turned(from, angleOf())], "drag");
    }
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (event.shiftKey) {
      return set([undefined, undefined, turned(around({ clientX: before.x, clientY: before.y }), around(event))], "drag");
    }
    const box = canvas.getBoundingClientRect();
    return set([state.move[0] + (event.clientX - before.x) / box.width, state.move[1] + (event.clientY - before.y) / box.height], "drag");
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] }[event.key];
    if (!step) return;
    event.preventDefault();
    set([state.move[0] + step[0], state.move[1] + step[1]], "keys");
  });

  const render = newest(async () => {
    const { images, command } = await frames("/api/images", { items: [state.item], size: shownSize(canvas), ...sampling() });
    show(canvas, images[0]);
    canvas.setAttribute("aria-label", `${labelOf(state.item)}; arrow keys move it`);
    showCommand(root, command);
  }, complain);

  return () => {
    split.hidden = state.item === null;
    empty.hidden = state.item !== null;
    if (state.item === null) return needsItem(empty);
    sliders.forEach((s, i) => s.set(state.move[i]));
    return render();
  };
}
