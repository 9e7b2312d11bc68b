// Where the time of the last reply went, as figures and as bars on one clock.

const NAMES = { tokenizer: "Listen", context: "Recall", chat: "Think", tts: "Speak", vocoder: "Voice" };

const milliseconds = (value) => (value === null ? "–" : `${Math.round(value)} ms`);

export function showLatency(told) {
  for (const [id, value] of [["gap", told.gap_ms], ["ttfa", told.time_to_first_audio_ms], ["total", told.total_ms]]) {
    document.getElementById(id).textContent = milliseconds(value);
  }
  const begin = Math.min(0, ...told.stages.map((stage) => stage.start_ms));
  const end = Math.max(1, ...told.stages.map((stage) => stage.end_ms ?? stage.start_ms));
  const place = (at) => `${(100 * (at - begin)) / (end - begin)}%`;
  const bar = (kind, from, to) => {
    const node = document.createElement("span");
    node.className = kind;
    node.style.left = place(from);
    node.style.right = `calc(100% - ${place(to)})`;
    return node;
  };
  const rows = told.stages.map((stage) => {
    const row = document.createElement("li");
    const name = document.createElement("span");
    name.textContent = NAMES[stage.stage] ?? stage.stage;
    name.title = stage.stage;
    const track = document.createElement("span");
    track.className = "track";
    const first = stage.first_output_ms;
    track.append(bar("wait", stage.start_ms, first ?? end));
    if (first !== null) track.append(bar("work", first, stage.end_ms));
    const figure = document.createElement("output");
    figure.textContent = milliseconds(first === null ? null : first - stage.start_ms);
    figure.title = "first input to first output";
    row.append(name, track, figure);
    return row;
  });
  document.getElementById("stages").replaceChildren(...rows);
}
