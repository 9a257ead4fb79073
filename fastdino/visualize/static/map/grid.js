// Which pictures lie in a rectangle or near a point, without asking all of them.

const POINTS_IN_CELL = 16;

class Grid {
  constructor(data) {
    this.x = data.x;
    this.y = data.y;
    this.cells = Math.max(1, Math.ceil(Math.sqrt(data.count / POINTS_IN_CELL)));
    this.size = (EXTENT + 1) / this.cells;
    this.starts = new Uint32Array(this.cells ** 2 + 1);
    this.pictures = new Uint32Array(data.count);
    this.sort(data.count);
  }

  cellOf(picture) {
    return Math.floor(this.y[picture] / this.size) * this.cells + Math.floor(this.x[picture] / this.size);
  }

  // A counting sort: starts[c] .. starts[c + 1] are the pictures of cell c.
  sort(count) {
    for (let i = 0; i < count; i++) this.starts[this.cellOf(i) + 1]++;
    for (let cell = 0; cell < this.cells ** 2; cell++) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice();
    for (let i = 0; i < count; i++) this.pictures[next[this.cellOf(i)]++] = i;
  }

  // Calls visit(first, last) for each row of cells: a range of this.pictures.
  rows(box, visit) {
    const clamp = (value) => Math.min(this.cells - 1, Math.max(0, Math.floor(value / this.size)));
    const left = clamp(box.left);
    const right = clamp(box.right);
    const bottom = clamp(box.bottom);
    for (let row = clamp(box.top); row <= bottom; row++) {
      visit(this.starts[row * this.cells + left], this.starts[row * this.cells + right + 1]);
    }
  }

  // How many pictures there are in the cells that the box touches.
  count(box) {
    let total = 0;
    this.rows(box, (first, last) => (total += last - first));
    return total;
  }

  each(box, visit) {
    this.rows(box, (first, last) => {
      for (let k = first; k < last; k++) visit(this.pictures[k]);
    });
  }

  // The picture nearest to (x, y) and at most `radius` away, -1 for none.
  nearest(x, y, radius) {
    let best = -1;
    let least = radius ** 2;
    const box = { left: x - radius, right: x + radius, top: y - radius, bottom: y + radius };
    this.each(box, (i) => {
      const distance = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
      if (distance <= least) {
        least = distance;
        best = i;
      }
    });
    return best;
  }
}
