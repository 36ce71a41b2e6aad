// Numbers of the report: base64 of compressed planes of bytes, each in an element of its own.

const TYPES = {
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array,
};

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Planes: the first byte of every number, then the second of every number, and so on.
function joinedPlanes(planes, n, Type) {
  const width = Type.BYTES_PER_ELEMENT;
  if (planes.length !== n * width) throw new Error("its data were truncated or changed");
  if (width === 1) return new Type(planes.buffer);
  if (width === 2) {
    const found = new Uint16Array(n);
    for (let i = 0; i < n; i++) found[i] = planes[i] | (planes[n + i] << 8);
    return found;
  }
  const found = new Uint32Array(n);
  for (let i = 0; i < n; i++) {
    found[i] = planes[i] | (planes[n + i] << 8) | (planes[2 * n + i] << 16)
      | (planes[3 * n + i] << 24);
  }
  return new Type(found.buffer);
}

async function readArrays() {
  const found = {};
  const elements = document.querySelectorAll('script[type="application/octet-stream"]');
  await Promise.all(Array.from(elements, async (element) => {
    const planes = await inflated(bytesOf(element.textContent));
    const { kind, n } = element.dataset;
    found[element.id.slice("data-".length)] = joinedPlanes(planes, Number(n), TYPES[kind]);
    element.remove();
  }));
  return found;
}
