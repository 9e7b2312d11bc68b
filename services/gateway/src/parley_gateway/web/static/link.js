// The connection: OpenAI Realtime events over a WebSocket, resumed where it breaks.

const RETRIES = 5;

export class Link {
  constructor({ onEvent, onState }) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.handle = "";
    this.failures = 0;
  }

  get open() { return this.socket?.readyState === WebSocket.OPEN; }

  // One connection at a time: who asks while one is being made waits for the same.
  connect(key) {
    if (this.opening) return this.opening;
    clearTimeout(this.retry);
    this.key = key;
    this.wanted = true;
    const query = new URLSearchParams({ model: "step-audio", parley_events: "1" });
    if (this.handle) query.set("parley_resume", this.handle);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const protocols = ["realtime", ...(key ? [`openai-insecure-api-key.${key}`] : [])];
    const socket = new WebSocket(`${scheme}://${location.host}/v1/realtime?${query}`, protocols);
    this.socket = socket;
    this.onState("connecting");
    const opened = new Promise((resolve, reject) => {
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "session.created") { this.failures = 0; this.onState("open"); resolve(); }
        if (event.type === "parley.resumption") this.handle = event.resumable ? event.handle : "";
        this.onEvent(event);
      };
      socket.onclose = () => {
        this.opening = null;
        reject(new Error("The gateway closed the connection."));
        if (socket === this.socket) this.lost();
      };
    });
    this.opening = opened;
    const made = () => { if (this.opening === opened) this.opening = null; };
    opened.then(made, made);
    return opened;
  }

  lost() {
    this.onState("closed");
    if (!this.wanted || this.failures >= RETRIES) return;
    // A handle that was refused is of no more use; the next attempt begins anew.
    if (this.failures++) this.handle = "";
    this.retry = setTimeout(() => this.connect(this.key), 300 * 2 ** this.failures);
  }

  send(type, fields = {}) {
    if (this.open) this.socket.send(JSON.stringify({ type, ...fields }));
  }
}
