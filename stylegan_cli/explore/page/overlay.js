// Handles, targets and the mask over an image.

const NS = "http://www.w3.org/2000/svg";
const NEAR = 14; // CSS pixels at which a press takes a point

function svg(tag, properties = {}) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  return element;
}

export function createOverlay(width, height, onchange) {
  const veil = document.createElement("canvas");
  Object.assign(veil, { width, height, className: "veil" });
  veil.setAttribute("aria-hidden", "true");
  const marks = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "marks", role: "group", "aria-label": "Handles and targets" });
  const element = document.createElement("div");
  element.className = "overlay";
  element.append(veil, marks);
  const unit = Math.max(width, height) / 100;
  let points = [];
  let moves = new Uint8Array(width * height);
  let mode = "points";
  let brush = 4;
  let held = null; // { k, end: 'handle' | 'target' }
  let locked = false;
  let open = null; // the number of a point whose target is still to be set

  const position = (event) => {
    const box = element.getBoundingClientRect();
    const clamp = (x, most) => Math.min(most, Math.max(0, x));
    return [clamp(((event.clientX - box.left) / box.width) * width, width), clamp(((event.clientY - box.top) / box.height) * height, height)];
  };
  const scale = () => element.getBoundingClientRect().width / width;

  function find(x, y) {
    let best = null;
    let nearest = NEAR / scale();
    points.forEach((p, k) => {
      for (const [end, px, py] of [["target", p.tx, p.ty], ["handle", p.x, p.y]]) {
        const distance = Math.hypot(px - x, py - y);
        if (distance <= nearest) [best, nearest] = [{ k, end }, distance];
      }
    });
    return best;
  }

  function set(next) {
    if (next.length < points.length) aim(null);
    points = next;
    refresh();
    onchange(points);
  }

  function aim(k) {
    open = k;
    element.classList.toggle("aiming", k !== null);
  }

  // The keys act on the point that was pressed last.
  const take = () => marks.querySelector(`[data-key="${held.k}-${held.end}"]`).focus({ preventScroll: true });

  function move(k, patch) {
    set(points.map((p, i) => (i === k ? { ...p, ...patch } : p)));
  }

  const remove = (k) => set(points.filter((_, i) => i !== k));

  function refresh() {
    const focused = marks.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    marks.replaceChildren(...points.flatMap((p, k) => [
      svg("path", { d: arrow(p), class: "way" }),
      dot(p.tx, p.ty, "target", k),
      dot(p.x, p.y, "handle", k),
    ]));
    if (focused) marks.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  // From the handle to the rim of the target, with a head.
  function arrow({ x, y, tx, ty }) {
    const length = Math.hypot(tx - x, ty - y);
    if (length < unit * 4) return "";
    const [ux, uy] = [(tx - x) / length, (ty - y) / length];
    const [ex, ey] = [tx - ux * unit * 2.4, ty - uy * unit * 2.4];
    const side = (sign) => `${ex - unit * (2 * ux + sign * 1.4 * uy)} ${ey - unit * (2 * uy - sign * 1.4 * ux)}`;
    return `M${x} ${y}L${ex} ${ey}M${side(1)}L${ex} ${ey}L${side(-1)}`;
  }

  function dot(x, y, end, k) {
    const circle = svg("circle", {
      cx: x, cy: y, r: unit * 1.8, class: end, "stroke-width": unit * 0.6, tabindex: 0, role: "button", "data-key": `${k}-${end}`,
      "aria-label": `${end === "handle" ? "Handle" : "Target"} ${k + 1} at ${x.toFixed(0)}, ${y.toFixed(0)}`,
    });
    circle.addEventListener("keydown", (event) => {
      if (locked) return;
      const step = { ArrowLeft: [-0.5, 0], ArrowRight: [0.5, 0], ArrowUp: [0, -0.5], ArrowDown: [0, 0.5] }[event.key];
      if (step) {
        event.preventDefault();
        place(k, end, x + step[0], y + step[1]);
      }
      if (event.key === "Escape") aim(null);
      if (event.key === "Delete" || event.key === "Backspace") remove(k);
    });
    return circle;
  }

  function place(k, end, x, y) {
    const [a, b] = [Math.min(width, Math.max(0, x)), Math.min(height, Math.max(0, y))];
    move(k, end === "handle" ? { x: a, y: b } : { tx: a, ty: b });
  }

  function paintAt(x, y) {
    const value = mode === "brush" ? 1 : 0;
    const r = brush / 2;
    for (let v = Math.max(0, Math.floor(y - r)); v < Math.min(height, Math.ceil(y + r)); v++) {
      for (let u = Math.max(0, Math.floor(x - r)); u < Math.min(width, Math.ceil(x + r)); u++) {
        if (Math.hypot(u + 0.5 - x, v + 0.5 - y) <= r + 0.25) moves[v * width + u] = value;
      }
    }
    showVeil();
  }

  function showVeil() {
    const context = veil.getContext("2d");
    const image = context.createImageData(width, height);
    const any = moves.some(Boolean);
    for (let i = 0; i < moves.length; i++) {
      image.data.set(any && !moves[i] ? [20, 16, 40, 140] : [0, 0, 0, 0], 4 * i);
    }
    context.putImageData(image, 0, 0);
  }

  element.addEventListener("pointerdown", (event) => {
    if (locked || event.button) return;
    event.preventDefault();
    element.setPointerCapture(event.pointerId);
    const [x, y] = position(event);
    if (mode !== "points") {
      held = "brush";
      paintAt(x, y);
      return;
    }
    if (open !== null && points[open]) {
      held = { k: open, end: "target" };
      aim(null);
      place(held.k, held.end, x, y);
      return take();
    }
    held = find(x, y);
    if (!held) {
      held = { k: points.length, end: "target", isNew: true };
      set([...points, { x, y, tx: x, ty: y }]);
    }
    take();
  });
  element.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [x, y] = position(event);
    if (held === "brush") paintAt(x, y);
    else place(held.k, held.end, x, y);
  });
  for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, () => {
    const point = points[held?.k];
    const isClick = point && held.isNew && Math.hypot(point.tx - point.x, point.ty - point.y) * scale() < 4;
    aim(isClick ? held.k : null);
    held = null;
  });

  return {
    element,
    points: () => points,
    set,
    move,
    remove,
    add: () => set([...points, { x: width / 2, y: height / 2, tx: width / 2, ty: height / 3 }]),
    place: (found) => set(points.map((p, k) => (found[k] ? { ...p, x: found[k][0], y: found[k][1] } : p))),
    setMode: (next) => {
      mode = next;
      aim(null);
    },
    setBrush: (size) => (brush = size),
    lock: (on) => {
      locked = on;
      aim(null);
    },
    clearMask: () => {
      moves = new Uint8Array(width * height);
      showVeil();
    },
    mask: () => {
      if (!moves.some(Boolean)) return null;
      let text = "";
      for (let i = 0; i < moves.length; i += 8192) text += String.fromCharCode(...moves.subarray(i, i + 8192));
      return btoa(text);
    },
  };
}
