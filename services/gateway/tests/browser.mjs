// As much of a browser as the page touches: a document, a WebSocket, a microphone, a gateway.

class Element {
  constructor() {
    Object.assign(this, { value: "", textContent: "", hidden: true, disabled: false, dataset: {} });
    Object.assign(this, { style: {}, classList: { add() {}, toggle() {} }, listeners: {} });
  }
  addEventListener(kind, listener) { this.listeners[kind] = listener; }
  setAttribute(name, value) { this[name] = value; }
  append() {}
  replaceChildren() {}
}

export const elements = {};
export const $ = (id) => (elements[id] ??= new Element());
export const sockets = [];
export const microphones = [];
export const players = [];
export const gateway = { key: null };
export const settle = () => new Promise((resolve) => setImmediate(resolve));

const stored = {};

class FakeSocket {
  static OPEN = 1;
  constructor() {
    this.readyState = 0;
    this.sent = [];
    sockets.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  tell(type, fields = {}) {
    this.readyState = 1;
    this.onmessage({ data: JSON.stringify({ type, ...fields }) });
  }
  end() { this.readyState = 3; this.onclose(); }
}

class Node {
  constructor(context, kind) {
    this.port = { postMessage() {} };
    if (kind === "playback") players.push(this);
  }
  connect(next) { return next; }
  disconnect() {}
}

Object.assign(globalThis, {
  WebSocket: FakeSocket,
  AudioWorkletNode: Node,
  AudioContext: class {
    audioWorklet = { addModule: async () => {} };
    createAnalyser() { return new Node(); }
    createMediaStreamSource() { return new Node(); }
    async resume() {}
  },
  Option: class {},
  document: { getElementById: $, createElement: () => new Element(), body: new Element() },
  isSecureContext: true,
  location: { protocol: "http:", host: "here", search: "" },
  matchMedia: () => ({}),
  requestAnimationFrame: () => {},
  sessionStorage: {
    getItem: (name) => stored[name] ?? null,
    setItem(name, value) { stored[name] = value; },
  },
  fetch: async (path, { headers }) => {
    const refused = headers.Authorization
      ? headers.Authorization !== `Bearer ${gateway.key}`
      : gateway.key && path !== "v1/about";
    const told = refused
      ? { error: { message: "no such key" } }
      : { credentials_needed: Boolean(gateway.key), data: [], default_voice: "a" };
    return { ok: !refused, json: async () => told };
  },
});
globalThis.window = globalThis;
globalThis.navigator ??= {}; // newer Nodes have one
Object.defineProperty(navigator, "mediaDevices", {
  value: {
    // Whoever asks waits for the user, as in a browser.
    getUserMedia: () => new Promise((resolve, reject) => {
      const stream = { live: true, getTracks: () => [{ stop() { stream.live = false; } }] };
      const refusal = Object.assign(new Error(), { name: "NotAllowedError" });
      microphones.push({ stream, allow: () => resolve(stream), deny: () => reject(refusal) });
    }),
  },
});
