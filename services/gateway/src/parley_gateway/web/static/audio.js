// Microphone and loudspeaker at the rate of the protocol: PCM16, mono, 24 kHz.

const RATE = 24000;

export function toBase64(samples) {
  const bytes = new Uint8Array(samples.length * 2);
  const view = new DataView(bytes.buffer);
  samples.forEach((sample, n) => {
    const level = Math.max(-1, Math.min(1, sample));
    view.setInt16(n * 2, Math.round(level * 32767), true);
  });
  let text = "";
  for (let begin = 0; begin < bytes.length; begin += 8192) {
    text += String.fromCharCode(...bytes.subarray(begin, begin + 8192));
  }
  return btoa(text);
}

export function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, n) => view.getInt16(n * 2, true) / 32768);
}

export class Sound {
  constructor({ onPacket, onPlayed }) {
    this.onPacket = onPacket;
    this.onPlayed = onPlayed;
    this.stream = null;
  }

  async open() {
    if (!window.isSecureContext) {
      throw new Error("The browser lets a page have sound by https or on this machine (localhost) only.");
    }
    if (this.context) { await this.context.resume(); return; }
    const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    await context.audioWorklet.addModule("worklets.js");
    this.player = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.player.port.onmessage = ({ data }) => {
      this.onPlayed(data.item, (data.heard / RATE) * 1000, data.dry);
    };
    this.replyMeter = context.createAnalyser();
    this.micMeter = context.createAnalyser();
    for (const meter of [this.replyMeter, this.micMeter]) meter.fftSize = 1024;
    this.player.connect(this.replyMeter).connect(context.destination);
    this.context = context;
    await context.resume();
  }

  async listen() {
    await this.open();
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    this.source = this.context.createMediaStreamSource(this.stream);
    this.capture = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    this.capture.port.onmessage = ({ data }) => this.onPacket(data);
    this.source.connect(this.capture);
    this.source.connect(this.micMeter);
  }

  deaf() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.source?.disconnect();
    this.stream = this.source = null;
  }

  play(item, samples) {
    this.player?.port.postMessage({ item, piece: samples }, [samples.buffer]);
  }

  hush() { this.player?.port.postMessage({ flush: true }); }

  duck(on) { this.player?.port.postMessage({ gain: on ? 0.25 : 1 }); }
}
