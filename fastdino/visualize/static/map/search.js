// Which pictures are meant by some words and a chosen group.

class Search {
  constructor(data) {
    this.data = data;
    this.words = [];
    this.group = null;
  }

  // All words must occur in a picture's name or class, in any order.
  setWords(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
  }

  // The same group again means none. `kind` is class or cluster.
  toggleGroup(kind, number) {
    this.group = this.isChosen(kind, number) ? null : { kind, number };
  }

  isChosen(kind, number) {
    return this.group !== null && this.group.kind === kind && this.group.number === number;
  }

  clear() {
    this.words = [];
    this.group = null;
  }

  // The pictures found, in their order; null if nothing is asked for.
  found() {
    if (!this.words.length && !this.group) return null;
    const pictures = [];
    for (let i = 0; i < this.data.count; i++) if (this.inGroup(i) && this.hasWords(i)) pictures.push(i);
    return pictures;
  }

  inGroup(picture) {
    if (!this.group) return true;
    const groups = this.group.kind === "class" ? this.data.labels : this.data.clusters;
    return groups[picture] === this.group.number;
  }

  hasWords(picture) {
    const text = this.texts[picture];
    return this.words.every((word) => text.includes(word));
  }

  // Made when first needed: most visitors look before they search.
  get texts() {
    this.lowered ??= this.data.names.map((name, i) => `${name} ${classOf(this.data, i)}`.toLowerCase());
    return this.lowered;
  }
}
