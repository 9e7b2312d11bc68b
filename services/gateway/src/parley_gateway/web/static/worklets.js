// Runs in the audio thread: the microphone in packets, the reply out of a queue.

const PACKET = 960; // 40 ms at 24 kHz
const REPORT = 1200; // 50 ms

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.packet = new Float32Array(PACKET);
    this.filled = 0;
  }

  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    for (const sample of samples) {
      this.packet[this.filled++] = sample;
      if (this.filled === PACKET) {
        this.port.postMessage(this.packet.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

// Plays pieces in order, says how much of which item was heard, and falls silent at once.
class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pieces = [];
    this.place = 0;
    this.item = null;
    this.heard = 0;
    this.gain = 1;
    this.wanted = 1;
    this.sinceReport = 0;
    this.port.onmessage = ({ data }) => {
      if (data.piece) this.pieces.push(data);
      else if (data.flush) this.flush();
      else if (data.gain !== undefined) this.wanted = data.gain;
    };
  }

  flush() {
    this.report();
    this.pieces = [];
    this.place = 0;
    this.item = null;
  }

  // `dry`: nothing is left to play; whether more will come only the page knows.
  report() {
    this.sinceReport = 0;
    if (this.item === null) return;
    this.port.postMessage({ item: this.item, heard: this.heard, dry: !this.pieces.length });
  }

  process(_, [output]) {
    const out = output[0];
    for (let n = 0; n < out.length; n++) {
      // A ramp of some 5 ms: no click when the reply gives way.
      this.gain += (this.wanted - this.gain) * 0.008;
      const head = this.pieces[0];
      if (!head) { out[n] = 0; continue; }
      if (this.item !== head.item) {
        this.report();
        this.item = head.item;
        this.heard = 0;
      }
      out[n] = head.piece[this.place++] * this.gain;
      this.heard++;
      if (this.place === head.piece.length) { this.pieces.shift(); this.place = 0; }
    }
    this.sinceReport += out.length;
    if (this.sinceReport >= REPORT) this.report();
    return true;
  }
}

registerProcessor("capture", Capture);
registerProcessor("playback", Playback);
