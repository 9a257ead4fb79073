// Thumbnails out of their sheets, each sheet decoded when one of its pictures is first wanted.

class Atlas {
  constructor(data, arrived) {
    this.data = data;
    this.arrived = arrived;
    this.sources = Array.from(document.querySelectorAll("script.sheet"));
    this.bitmaps = this.sources.map(() => null);
    this.pending = new Map();
    // Only one sheet at a time: unpacking its text would otherwise hold up the frames.
    this.last = Promise.resolve();
  }

  sheetOf(picture) {
    return Math.floor(this.data.slots[picture] / this.data.columns ** 2);
  }

  // A promise that the picture's sheet is there.
  load(picture) {
    const sheet = this.sheetOf(picture);
    if (!this.pending.has(sheet)) {
      this.last = this.last.then(() => this.decode(sheet));
      this.pending.set(sheet, this.last);
    }
    return this.pending.get(sheet);
  }

  async decode(sheet) {
    await new Promise(requestAnimationFrame);
    const source = this.sources[sheet];
    this.bitmaps[sheet] = await createImageBitmap(new Blob([bytesOf(source.textContent)], { type: "image/webp" }));
    source.remove();
    this.arrived();
  }

  // Draws the picture where its sheet is there, and asks for the sheet where it is not; tells which.
  draw(context, picture, left, top, side) {
    const bitmap = this.bitmaps[this.sheetOf(picture)];
    if (!bitmap) {
      this.load(picture);
      return false;
    }
    const { slots, columns, side: own } = this.data;
    const place = slots[picture] % columns ** 2;
    const column = place % columns;
    const row = (place - column) / columns;
    context.drawImage(bitmap, column * own, row * own, own, own, left, top, side, side);
    return true;
  }

  // A small canvas with the picture, filled in when the sheet arrives.
  element(picture) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = this.data.side;
    canvas.className = "thumbnail";
    canvas.setAttribute("aria-hidden", "true");
    this.load(picture).then(() => this.draw(canvas.getContext("2d"), picture, 0, 0, this.data.side));
    return canvas;
  }
}
