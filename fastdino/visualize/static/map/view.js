// Which part of the map is on the screen. Lengths on the screen are in CSS pixels.

const MARGIN = 24;
const GLIDE_MS = 350;

class View {
  constructor(data, changed) {
    this.changed = changed;
    this.x = EXTENT / 2;
    this.y = EXTENT / 2;
    this.scale = 1;
    this.width = 1;
    this.height = 1;
    // Pictures that would be 400 pixels apart are as far as anyone wants to look.
    this.closest = 400 / data.spacing;
    this.bounds = boundsOf(data, Array.from({ length: data.count }, (_, i) => i));
  }

  get furthest() {
    return this.scaleFor(this.bounds) / 2;
  }

  resize(width, height) {
    const first = this.width === 1;
    this.width = width;
    this.height = height;
    if (first) this.moveTo(this.framing(this.bounds));
    else this.moveTo(this);
  }

  scaleFor(box) {
    const width = Math.max(1, this.width - 2 * MARGIN);
    const height = Math.max(1, this.height - 2 * MARGIN);
    return Math.min(width / Math.max(1, box.right - box.left), height / Math.max(1, box.bottom - box.top));
  }

  // Where to stand to see a box whole.
  framing(box) {
    return { x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, scale: this.scaleFor(box) };
  }

  moveTo({ x, y, scale }) {
    this.scale = Math.min(Math.max(scale, this.furthest), Math.max(this.closest, this.furthest));
    this.x = Math.min(Math.max(x, this.bounds.left), this.bounds.right);
    this.y = Math.min(Math.max(y, this.bounds.top), this.bounds.bottom);
    this.changed();
  }

  pan(across, down) {
    this.stop();
    this.moveTo({ x: this.x - across / this.scale, y: this.y - down / this.scale, scale: this.scale });
  }

  // Zooms so that what is at (left, top) on the screen stays there.
  zoom(factor, left = this.width / 2, top = this.height / 2) {
    this.stop();
    const before = this.toMap(left, top);
    this.moveTo({ x: this.x, y: this.y, scale: this.scale * factor });
    const after = this.toMap(left, top);
    this.moveTo({ x: this.x + before.x - after.x, y: this.y + before.y - after.y, scale: this.scale });
  }

  // Moves there in a third of a second, at once for people who want no motion.
  glideTo(target) {
    this.stop();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.moveTo(target);
      return;
    }
    const start = { x: this.x, y: this.y, scale: this.scale };
    const began = performance.now();
    const step = (now) => {
      const share = Math.min(1, Math.max(0, (now - began) / GLIDE_MS));
      const eased = 1 - (1 - share) ** 3;
      const between = (from, to) => from + (to - from) * eased;
      this.moveTo({
        x: between(start.x, target.x),
        y: between(start.y, target.y),
        scale: start.scale * (target.scale / start.scale) ** eased,
      });
      this.gliding = share < 1 ? requestAnimationFrame(step) : 0;
    };
    this.gliding = requestAnimationFrame(step);
  }

  stop() {
    cancelAnimationFrame(this.gliding);
    this.gliding = 0;
  }

  toMap(left, top) {
    return { x: this.x + (left - this.width / 2) / this.scale, y: this.y + (top - this.height / 2) / this.scale };
  }

  // The part of the map on the screen, and `around` pixels more on each side.
  box(around = 0) {
    const { x: left, y: top } = this.toMap(-around, -around);
    const { x: right, y: bottom } = this.toMap(this.width + around, this.height + around);
    return { left, top, right, bottom };
  }
}

// The smallest box around some pictures; all of the map around none.
function boundsOf(data, pictures) {
  if (!pictures.length) return { left: 0, top: 0, right: EXTENT, bottom: EXTENT };
  const box = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  for (const i of pictures) {
    box.left = Math.min(box.left, data.x[i]);
    box.right = Math.max(box.right, data.x[i]);
    box.top = Math.min(box.top, data.y[i]);
    box.bottom = Math.max(box.bottom, data.y[i]);
  }
  return box;
}
