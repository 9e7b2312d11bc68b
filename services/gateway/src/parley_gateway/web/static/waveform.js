// Two live lines on one canvas: the microphone above, the reply below.

export class Waves {
  constructor(canvas, meters) {
    this.canvas = canvas;
    this.meters = meters;
    this.samples = new Float32Array(1024);
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const width = canvas.clientWidth * scale;
    const height = canvas.clientHeight * scale;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const { you, reply } = this.meters();
    this.line(pen, you, style.getPropertyValue("--you"), width, height * 0.48, height * 0.3, scale);
    this.line(pen, reply, style.getPropertyValue("--reply"), width, height * 0.74, height * 0.3, scale);
    setTimeout(() => requestAnimationFrame(() => this.draw()), this.still.matches ? 250 : 0);
  }

  line(pen, meter, colour, width, middle, reach, scale) {
    if (meter) meter.getFloatTimeDomainData(this.samples);
    else this.samples.fill(0);
    const count = this.samples.length;
    pen.beginPath();
    for (let n = 0; n < count; n += 4) {
      const edge = Math.sin((Math.PI * n) / count); // falls to nothing at both ends
      const level = Math.max(-1, Math.min(1, this.samples[n] * 2.2));
      const y = middle - level * reach * edge;
      const x = (n / (count - 4)) * width;
      if (n) pen.lineTo(x, y);
      else pen.moveTo(x, y);
    }
    pen.strokeStyle = colour;
    pen.lineWidth = 2.2 * scale;
    pen.lineJoin = "round";
    pen.stroke();
  }
}
