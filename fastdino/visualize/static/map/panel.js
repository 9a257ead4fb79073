// What stands beside the map as ordinary HTML: what was found, what is selected, and the groups.

const MOST_RESULTS = 60;

const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class Panel {
  // `actions`: select(picture), toggleGroup(kind, number).
  constructor(data, atlas, actions) {
    Object.assign(this, { data, atlas, actions });
    this.rows = [...this.classRows(), ...this.clusterRows()];
    for (const row of this.rows) row.button.addEventListener("click", () => actions.toggleGroup(row.kind, row.number));
  }

  classRows() {
    return [...document.querySelectorAll("[data-class]")].map((button) => {
      const swatch = element("i", { className: "swatch" });
      button.prepend(swatch);
      return { kind: "class", number: Number(button.dataset.class), button, swatch };
    });
  }

  clusterRows() {
    const sizes = new Array(this.data.groups).fill(0);
    for (const cluster of this.data.clusters) sizes[cluster]++;
    return sizes.map((size, number) => {
      const swatch = element("i", { className: "swatch" });
      const words = element("span", { className: "name", textContent: `Cluster ${number + 1}` });
      const count = element("span", { className: "count", textContent: size.toLocaleString("en") });
      const button = element("button", { type: "button" }, swatch, words, count);
      byId("clusters-list").append(element("li", {}, button));
      return { kind: "cluster", number, button, swatch };
    });
  }

  // Colours beside the names, and which group is chosen.
  showGroups(colours, search) {
    byId("clusters-section").hidden = colours.kind !== "cluster" || !this.data.groups;
    for (const { kind, number, button, swatch } of this.rows) {
      swatch.style.background = colours.kind === kind ? colours.css[number] : "transparent";
      button.setAttribute("aria-pressed", String(search.isChosen(kind, number)));
    }
  }

  // `pictures` that were found, null where nothing was asked for.
  showResults(pictures) {
    const shown = (pictures ?? []).slice(0, MOST_RESULTS);
    byId("results").hidden = !shown.length;
    byId("results-list").replaceChildren(...shown.map((picture) => this.item(picture)));
    byId("status").textContent = this.statusOf(pictures, shown.length);
  }

  statusOf(pictures, shown) {
    const total = this.data.count.toLocaleString("en");
    if (!pictures) return `${total} pictures`;
    const rest = pictures.length > shown ? `; the first ${shown} are listed` : "";
    return `${pictures.length.toLocaleString("en")} of ${total} pictures${rest}`;
  }

  showSelection(picture) {
    byId("selected").hidden = picture < 0;
    if (picture < 0) return;
    byId("selected-name").textContent = this.data.names[picture];
    byId("selected-class").textContent = classOf(this.data, picture);
    byId("selected-picture").replaceChildren(this.atlas.element(picture));
    const neighbours = neighboursOf(this.data, picture);
    byId("neighbours-list").replaceChildren(...neighbours.map((neighbour) => this.item(neighbour)));
  }

  // A picture that can be chosen.
  item(picture) {
    // The folders have no room here; they are in the title.
    const name = element("span", { className: "name", textContent: this.data.names[picture].split("/").pop() });
    const kind = element("span", { className: "class", textContent: classOf(this.data, picture) });
    const button = element("button", { type: "button", title: this.data.names[picture] });
    button.append(this.atlas.element(picture), name, kind);
    button.dataset.picture = picture;
    button.addEventListener("click", () => this.actions.select(picture));
    return element("li", {}, button);
  }
}
