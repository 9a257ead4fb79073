// Puts the parts together: every change goes through one of these few functions.

const REACH = 24;

const data = readData();
const canvas = byId("map");
const state = { selected: -1, found: null, matches: null, aiming: false };
const grid = new Grid(data);
const atlas = new Atlas(data, repaint);
const colours = new Colours(data);
const view = new View(data, repaint);
const painter = new Painter(canvas, data, grid, atlas, colours, view);
const search = new Search(data);
const panel = new Panel(data, atlas, { select: visit, toggleGroup });
let frame = 0;

function repaint() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    painter.paint(state);
  });
}

function select(picture) {
  state.selected = picture;
  panel.showSelection(picture);
  history.replaceState(null, "", picture < 0 ? "#" : `#picture=${picture}`);
  repaint();
}

// Selects a picture that may be out of sight, and goes there.
function visit(picture) {
  select(picture);
  const near = 48 / (CROWDING * data.spacing);
  view.glideTo({ x: data.x[picture], y: data.y[picture], scale: Math.max(view.scale, near) });
}

function showAll() {
  view.glideTo(view.framing(state.found?.length ? boundsOf(data, state.found) : view.bounds));
}

function find() {
  state.found = search.found();
  state.matches = state.found && new Uint8Array(data.count);
  for (const picture of state.found ?? []) state.matches[picture] = 1;
  panel.showResults(state.found);
  panel.showGroups(colours, search);
  repaint();
}

function toggleGroup(kind, number) {
  search.toggleGroup(kind, number);
  if (colours.kind !== kind) paintBy(kind);
  find();
}

function paintBy(kind) {
  colours.choose(kind);
  byId("colours").value = kind;
  panel.showGroups(colours, search);
  repaint();
}

function pictureAt(left, top, reach = Math.max(REACH, painter.side / 2)) {
  const { x, y } = view.toMap(left, top);
  return grid.nearest(x, y, reach / view.scale);
}

function point(left, top) {
  const picture = pictureAt(left, top, Math.max(8, painter.side / 2));
  const hover = byId("hover");
  if (picture < 0 || (!hover.hidden && hover.dataset.picture === String(picture))) {
    hover.hidden = picture < 0;
    return;
  }
  hover.dataset.picture = picture;
  hover.replaceChildren(atlas.element(picture), element("span", { textContent: data.names[picture] }));
  hover.classList.toggle("left", left > view.width / 2);
  hover.classList.toggle("up", top > view.height / 2);
  hover.style.left = `${left}px`;
  hover.style.top = `${top}px`;
  hover.hidden = false;
}

function clear() {
  search.clear();
  byId("search").value = "";
  select(-1);
  find();
}

function selectFromAddress() {
  const picture = Number(/^#picture=(\d+)$/.exec(location.hash)?.[1] ?? -1);
  if (picture >= 0 && picture < data.count && picture !== state.selected) visit(picture);
}

function listen() {
  const leave = () => (byId("hover").hidden = true);
  const pick = (left, top, reach) => select(pictureAt(left, top, reach));
  new Gestures(canvas, view, { pick, point, leave, showAll, clear });
  for (const event of ["focus", "blur"]) {
    canvas.addEventListener(event, () => {
      state.aiming = canvas.matches(":focus-visible");
      repaint();
    });
  }
  byId("closer").addEventListener("click", () => view.zoom(KEY_ZOOM));
  byId("further").addEventListener("click", () => view.zoom(1 / KEY_ZOOM));
  byId("all").addEventListener("click", showAll);
  byId("search").addEventListener("input", (event) => {
    search.setWords(event.target.value);
    find();
  });
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (state.found?.length) visit(state.found[0]);
  });
  byId("close").addEventListener("click", () => select(-1));
  byId("colours").addEventListener("change", (event) => paintBy(event.target.value));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paintBy(colours.kind));
  addEventListener("hashchange", selectFromAddress);
  new ResizeObserver(() => {
    painter.resize();
    repaint();
  }).observe(canvas);
}

painter.resize();
listen();
find();
selectFromAddress();
