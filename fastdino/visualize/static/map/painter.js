// Draws the map: dots from afar, thumbnails where there is room for them.

// Side of a thumbnail as a share of the mean distance: pictures crowd together, and should not hide each other.
const CROWDING = 0.6;
const LEAST_SIDE = 10;
const MOST_THUMBNAILS = 2500;
const LARGEST_DOT = 8;
const SMALLEST_DOT = 2.5;

class Painter {
  constructor(canvas, data, grid, atlas, colours, view) {
    Object.assign(this, { canvas, data, grid, atlas, colours, view });
    this.context = canvas.getContext("2d", { alpha: false });
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    // More than twice the resolution costs time and shows nothing more.
    this.density = Math.min(2, devicePixelRatio || 1);
    this.canvas.width = Math.max(1, Math.round(clientWidth * this.density));
    this.canvas.height = Math.max(1, Math.round(clientHeight * this.density));
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.view.resize(clientWidth, clientHeight);
  }

  // Side of a thumbnail on the screen, in CSS pixels.
  get side() {
    return Math.min(CROWDING * this.data.spacing * this.view.scale, 1.5 * this.data.side);
  }

  showsThumbnails() {
    return this.side >= LEAST_SIDE && this.grid.count(this.view.box(this.side)) <= MOST_THUMBNAILS;
  }

  // `matches` has 1 for every picture that is not to fade; null fades none.
  paint({ selected, matches, aiming }) {
    const thumbnails = this.showsThumbnails();
    if (thumbnails) this.paintThumbnails(matches);
    else this.paintDots(matches);
    this.context.setTransform(this.density, 0, 0, this.density, 0, 0);
    if (selected >= 0) this.paintSelection(selected, thumbnails);
    if (aiming) this.paintCross();
  }

  paintDots(matches) {
    this.pixels.fill(this.colours.background);
    const dot = discOf(Math.round(Math.min(LARGEST_DOT, Math.max(SMALLEST_DOT, this.side * 0.6)) * this.density));
    if (matches) {
      this.paintDotsWhere(dot, this.colours.faint, (i) => !matches[i]);
      this.paintDotsWhere(dot, this.colours.strong, (i) => matches[i]);
    } else {
      this.paintDotsWhere(dot, this.colours.strong, () => true);
    }
    this.context.putImageData(this.image, 0, 0);
  }

  // Pixels are written one by one: for 50,000 dots that is several times faster than as many calls to the canvas.
  paintDotsWhere(dot, table, wanted) {
    const { x, y } = this.data;
    const { colours, pixels, view } = this;
    const { width, height } = this.canvas;
    const scale = view.scale * this.density;
    const left = width / 2 - view.x * scale - dot.length / 2;
    const top = height / 2 - view.y * scale - dot.length / 2;
    this.grid.each(view.box(LARGEST_DOT), (i) => {
      const column = Math.round(left + x[i] * scale);
      const row = Math.round(top + y[i] * scale);
      // A dot that is cut by the edge of the map is left out.
      if (column < 0 || row < 0 || column + dot.length > width || row + dot.length > height || !wanted(i)) return;
      const colour = table[colours.index(i)];
      for (let line = 0; line < dot.length; line++) {
        const start = (row + line) * width + column;
        pixels.fill(colour, start + dot[line], start + dot.length - dot[line]);
      }
    });
  }

  paintThumbnails(matches) {
    const { context, view, side } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = this.colours.map;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    const box = view.box(side);
    if (!matches) {
      this.grid.each(box, (i) => this.paintThumbnail(i, side));
      return;
    }
    context.globalAlpha = FADED;
    this.grid.each(box, (i) => matches[i] || this.paintPicture(i, side));
    context.globalAlpha = 1;
    this.grid.each(box, (i) => matches[i] && this.paintThumbnail(i, side));
  }

  // A frame in the colour of its group, once there is room for one.
  paintThumbnail(picture, side) {
    if (this.colours.groups && side >= 16) this.paintSquare(picture, side + 2 * Math.min(3, side / 16));
    this.paintPicture(picture, side);
  }

  // The colour of its group stands in for a picture that is not unpacked yet.
  paintPicture(picture, side) {
    const [x, y] = this.onScreen(picture);
    if (!this.atlas.draw(this.context, picture, x - side / 2, y - side / 2, side)) this.paintSquare(picture, side);
  }

  paintSquare(picture, side) {
    const [x, y] = this.onScreen(picture);
    this.context.fillStyle = this.colours.of(picture);
    this.context.fillRect(x - side / 2, y - side / 2, side, side);
  }

  // The selected picture with lines to its neighbours, over everything else.
  paintSelection(selected, thumbnails) {
    const { context } = this;
    const neighbours = neighboursOf(this.data, selected);
    const [x, y] = this.onScreen(selected);
    context.strokeStyle = this.colours.ink;
    context.lineWidth = 1.25;
    context.beginPath();
    for (const neighbour of neighbours) {
      context.moveTo(x, y);
      context.lineTo(...this.onScreen(neighbour));
    }
    context.stroke();
    const side = Math.max(this.side, thumbnails ? 0 : 18);
    for (const picture of neighbours) this.paintThumbnail(picture, side);
    this.paintRing(selected, Math.max(side, 32));
  }

  paintRing(picture, side) {
    const { context } = this;
    const [x, y] = this.onScreen(picture);
    for (const [colour, around] of [[this.colours.map, 6], [this.colours.accent, 4]]) {
      context.fillStyle = colour;
      context.fillRect(x - side / 2 - around, y - side / 2 - around, side + 2 * around, side + 2 * around);
    }
    this.paintPicture(picture, side);
  }

  // What Enter would select, for those who move without a mouse.
  paintCross() {
    const { context, view } = this;
    const [x, y] = [view.width / 2, view.height / 2];
    context.strokeStyle = this.colours.accent;
    context.lineWidth = 2;
    context.beginPath();
    for (const [across, down] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 6 * across, y + 6 * down);
      context.lineTo(x + 18 * across, y + 18 * down);
    }
    context.stroke();
  }

  onScreen(picture) {
    const { view, data } = this;
    return [
      (data.x[picture] - view.x) * view.scale + view.width / 2,
      (data.y[picture] - view.y) * view.scale + view.height / 2,
    ];
  }
}

// A disc of that many pixels: for each line, how many at either end are outside.
function discOf(pixels) {
  const radius = pixels / 2;
  return Array.from({ length: pixels }, (_, line) => {
    const half = Math.sqrt(radius ** 2 - (line + 0.5 - radius) ** 2);
    return Math.max(0, Math.round(radius - half));
  });
}
