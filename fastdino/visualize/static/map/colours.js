// A colour for each class or cluster, as CSS and as a number that can be written into pixels.

// What is left of a picture that is not meant.
const FADED = 0.14;

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

const property = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Colours {
  constructor(data) {
    this.data = data;
    this.choose(data.classes.length ? "class" : "cluster");
  }

  choose(kind) {
    this.kind = kind;
    this.groups = { class: this.data.labels, cluster: this.data.clusters }[kind] ?? null;
    const count = { class: this.data.classes.length, cluster: this.data.groups }[kind] ?? 0;
    // Classes that are neighbours in the tree get neighbouring hues.
    const places = kind === "class" ? ranks(this.data.order, count) : Array.from({ length: count }, (_, i) => i);
    this.map = property("--map");
    this.ink = property("--ink");
    this.accent = property("--accent");
    this.background = packed(this.map);
    const plain = this.groups ? property("--muted") : this.accent;
    this.strong = Uint32Array.from([...places.map((place) => hue(place, count)), plain], packed);
    this.css = Array.from(this.strong, written);
    this.faint = this.strong.map((colour) => mixed(colour, this.background, FADED));
  }

  // Its place in strong and faint: the last one for a picture without a group.
  index(picture) {
    const group = this.groups ? this.groups[picture] : -1;
    return group < 0 ? this.strong.length - 1 : group;
  }

  of(picture) {
    return this.css[this.index(picture)];
  }
}

// Place of each class in `order`, which lists classes; those that it leaves out come last.
function ranks(order, count) {
  const places = new Array(count).fill(count - 1);
  order.forEach((label, place) => (places[label] = place));
  return places;
}

// Evenly apart on the circle of hues; every second one darker, since neighbouring hues differ little.
function hue(place, count) {
  const lightness = (isDark() ? 0.76 : 0.64) - (place % 2) * 0.12;
  return `oklch(${lightness} 0.15 ${((25 + (360 * place) / count) % 360).toFixed(1)})`;
}

const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

// Any CSS colour as the number that stands for it in the memory of an image.
function packed(css) {
  pixel.fillStyle = css;
  pixel.fillRect(0, 0, 1, 1);
  return new Uint32Array(pixel.getImageData(0, 0, 1, 1).data.buffer)[0];
}

// The same number as CSS; its lowest byte is red.
function written(colour) {
  const bytes = [0, 8, 16].map((shift) => ((colour >>> shift) & 255).toString(16).padStart(2, "0"));
  return `#${bytes.join("")}`;
}

function mixed(colour, background, share) {
  let result = 0;
  for (const shift of [0, 8, 16, 24]) {
    const value = ((colour >>> shift) & 255) * share + ((background >>> shift) & 255) * (1 - share);
    result |= Math.round(value) << shift;
  }
  return result >>> 0;
}
