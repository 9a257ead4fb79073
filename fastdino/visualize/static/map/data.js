// What the page carries, decoded once. Lists have one value a picture, in the order of the pictures.

// Positions are whole numbers from 0 to this.
const EXTENT = 65535;

const content = (id) => document.getElementById(id).textContent;

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const integersOf = (id) => new Int32Array(bytesOf(content(id)).buffer);

function readData() {
  const about = JSON.parse(content("about"));
  const places = new Uint16Array(bytesOf(content("positions")).buffer);
  const count = about.names.length;
  return {
    ...about,
    count,
    x: Float32Array.from({ length: count }, (_, i) => places[2 * i]),
    y: Float32Array.from({ length: count }, (_, i) => places[2 * i + 1]),
    labels: integersOf("labels"),
    clusters: integersOf("clusters"),
    neighbours: integersOf("neighbours"),
    slots: integersOf("slots"),
    // How far apart pictures would be if they filled the map evenly.
    spacing: EXTENT / Math.sqrt(Math.max(count, 1)),
  };
}

function neighboursOf(data, picture) {
  const start = picture * data.nearest;
  return Array.from(data.neighbours.subarray(start, start + data.nearest));
}

const classOf = (data, picture) => data.classes[data.labels[picture]] ?? "";
