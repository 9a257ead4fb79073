// Mouse, fingers and keys on the map.

const CLICK_MOVES = 5;
const STEP = 90;
const KEY_ZOOM = 1.5;

class Gestures {
  // `actions`: pick(left, top) for a click, point(left, top) for a hovering mouse, leave(), and one for each other key.
  constructor(canvas, view, actions) {
    Object.assign(this, { canvas, view, actions });
    this.pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => actions.leave());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return { left: event.clientX - box.left, top: event.clientY - box.top };
  }

  down(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.at(event));
    this.moved = this.pointers.size > 1 ? Infinity : 0;
    this.actions.leave();
  }

  move(event) {
    const now = this.at(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") this.actions.point(now.left, now.top);
      return;
    }
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    this.pointers.set(event.pointerId, now);
    this.moved += Math.hypot(now.left - before.left, now.top - before.top);
    if (others.length) this.pinch(before, now, others[0]);
    else if (this.moved > CLICK_MOVES) this.view.pan(now.left - before.left, now.top - before.top);
  }

  // One finger moved while the other one rests: half the way is a shift, the change in distance a zoom.
  pinch(before, now, rest) {
    const distance = (place) => Math.max(1, Math.hypot(place.left - rest.left, place.top - rest.top));
    this.view.pan((now.left - before.left) / 2, (now.top - before.top) / 2);
    this.view.zoom(distance(now) / distance(before), (now.left + rest.left) / 2, (now.top + rest.top) / 2);
  }

  up(event) {
    const place = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (place && this.moved <= CLICK_MOVES) this.actions.pick(place.left, place.top);
  }

  wheel(event) {
    event.preventDefault();
    const { left, top } = this.at(event);
    const pixels = event.deltaMode ? event.deltaY * 24 : event.deltaY;
    // Browsers report a pinch on a touchpad as a wheel with Ctrl, in small steps.
    this.view.zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0018)), left, top);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowLeft: () => this.view.pan(STEP, 0),
      ArrowRight: () => this.view.pan(-STEP, 0),
      ArrowUp: () => this.view.pan(0, STEP),
      ArrowDown: () => this.view.pan(0, -STEP),
      "+": () => this.view.zoom(KEY_ZOOM),
      "=": () => this.view.zoom(KEY_ZOOM),
      "-": () => this.view.zoom(1 / KEY_ZOOM),
      0: () => this.actions.showAll(),
      Home: () => this.actions.showAll(),
      Enter: () => this.actions.pick(this.view.width / 2, this.view.height / 2, Infinity),
      Escape: () => this.actions.clear(),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  }
}
