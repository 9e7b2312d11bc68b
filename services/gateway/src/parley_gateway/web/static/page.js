// The page: one conversation, what it looks like, and what the user can change about it.

import { Sound, fromBase64, toBase64 } from "./audio.js";
import { showLatency } from "./latency.js";
import { Link } from "./link.js";
import { Transcript } from "./transcript.js";
import { Waves } from "./waveform.js";

const REPORT_MS = 250;
const $ = (id) => document.getElementById(id);
const STATES = {
  idle: "Ready when you are",
  listening: "Listening",
  speaking: "You are speaking",
  paused: "A pause … go on, or wait",
  thinking: "Thinking",
  replying: "Speaking",
};
const PICKERS = ["voice", "emotion", "language", "tempo", "eagerness"];

const transcript = new Transcript($("transcript"), $("empty"));
const sound = new Sound({ onPacket, onPlayed });
const link = new Link({ onEvent, onState });
new Waves($("waves"), () => ({ you: sound.stream && sound.micMeter, reply: sound.replyMeter }));

let responding = false; // a response is being made
let playing = null; // item whose sound is heard
let asking = false; // the microphone or the connection was asked for, and has not come
let waiting = null; // text to send when the response that is cut short has ended
let reported = 0;
const sent = new Set(); // items whose last sound has been sent
const begun = new Set(); // items whose sound has come
const over = new Set(); // items that will not be heard any more

function show(state) {
  document.body.dataset.state = state;
  $("state").textContent = STATES[state];
  $("stop").disabled = !(responding || playing);
}

const rest = () => show(sound.stream ? "listening" : "idle");

function tellProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

// Connection

function onState(state) {
  document.body.dataset.connection = state;
  $("connection").textContent = { open: "Connected", connecting: "Connecting …", closed: "Not connected" }[state];
  if (state === "closed") {
    responding = false;
    playing = null;
    // What the player still reports of them comes late.
    begun.forEach((id) => over.add(id));
    sound.hush();
    sound.duck(false);
    rest();
  }
}

async function connect() {
  if (link.open) return;
  await link.connect($("key").value.trim());
}

function configure() {
  const tags = ["emotion", "language", "tempo"].map((id) => $(id).value).filter(Boolean);
  const session = {
    type: "realtime",
    audio: {
      input: {
        turn_detection: { type: "semantic_vad", eagerness: $("eagerness").value },
        transcription: {},
      },
    },
    parley: { style_tags: tags },
  };
  if ($("voice").value) session.audio.output = { voice: $("voice").value };
  link.send("session.update", { session });
}

// Events of the server

const HANDLERS = {
  "session.created": () => { configure(); askWaiting(); },
  "session.updated": () => tellProblem(""),
  "input_audio_buffer.speech_started": ({ item_id }) => transcript.listening(item_id),
  "parley.speech": ({ started }) => {
    if (playing || responding) sound.duck(started);
    else show(started ? "speaking" : "paused");
  },
  "parley.turn": ({ decision }) => {
    if (decision === "commit") show("thinking");
    else if (decision === "reopen") show("speaking");
  },
  "parley.transcript": ({ item_id, stable, unstable, final }) => transcript.said(item_id, stable, unstable, final),
  "conversation.item.done": ({ item }) => {
    const part = item.content?.[0];
    if (part?.type === "input_text") transcript.said(item.id, part.text);
  },
  "response.created": () => { responding = true; },
  "response.output_audio_transcript.delta": ({ item_id, delta }) => transcript.write(item_id, delta),
  "response.output_audio.delta": ({ item_id, delta, parley }) => {
    begun.add(item_id);
    transcript.sound(item_id, parley);
    sound.play(item_id, fromBase64(delta));
  },
  "response.output_audio.done": ({ item_id }) => sent.add(item_id),
  "response.done": ({ response }) => {
    responding = false;
    if (response.status === "failed") {
      tellProblem(response.status_details?.error?.message ?? "The reply failed.");
      rest();
    }
    if (!playing && response.status !== "completed") rest();
    askWaiting();
    $("stop").disabled = !playing;
  },
  "parley.interruption": ({ item_ids, heard_text, reason }) => {
    sound.hush();
    sound.duck(false);
    playing = null;
    item_ids.forEach((id) => over.add(id));
    item_ids.slice(-1).forEach((id) => transcript.cut(id, heard_text));
    if (reason === "user_speech") show("speaking");
    else rest();
  },
  "parley.latency": (told) => showLatency(told),
  error: ({ error }) => {
    // The reply had ended by itself just before it was stopped: nothing is wrong.
    if (error.code !== "response_cancel_not_active") tellProblem(error.message);
  },
};

function onEvent(event) { HANDLERS[event.type]?.(event); }

// Sound

function onPacket(samples) { link.send("input_audio_buffer.append", { audio: toBase64(samples) }); }

function onPlayed(item, heard, dry) {
  if (over.has(item)) return;
  const ended = dry && sent.has(item);
  transcript.played(item, heard);
  if (ended || Math.abs(heard - reported) >= REPORT_MS) {
    reported = heard;
    link.send("parley.playback", { item_id: item, played_ms: heard, finished: ended });
  }
  if (ended) {
    over.add(item);
    transcript.all(item);
    playing = null;
    rest();
  } else if (playing !== item && !dry) {
    playing = item;
    show("replying");
  }
}

// The user

async function talk() {
  if (asking) return;
  asking = true;
  const on = !sound.stream;
  try {
    if (on) {
      tellProblem("");
      // Both to their end: a microphone that is allowed after the connection failed is closed, too.
      const tried = await Promise.allSettled([connect(), sound.listen()]);
      const failed = tried.find(({ status }) => status === "rejected");
      if (failed) throw failed.reason;
    } else {
      sound.deaf();
    }
  } catch (error) {
    sound.deaf();
    const refused = error.name === "NotAllowedError";
    tellProblem(refused ? "The browser does not let this page hear you. Allow the microphone and try again." : error.message);
  }
  asking = false;
  $("mic").setAttribute("aria-pressed", String(Boolean(sound.stream)));
  $("mic-label").textContent = $("mic").title = sound.stream ? "Stop talking" : "Start talking";
  if (!playing && !responding) rest();
}

function askWaiting() {
  if (waiting === null) return;
  const text = waiting;
  waiting = null;
  ask(text);
}

function ask(text) {
  const content = [{ type: "input_text", text }];
  link.send("conversation.item.create", { item: { type: "message", role: "user", content } });
  link.send("response.create");
}

async function write(event) {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  try {
    await Promise.all([connect(), sound.open()]);
  } catch (error) {
    tellProblem(error.message);
    return;
  }
  if (!responding) { ask(text); return; }
  waiting = text;
  link.send("response.cancel");
}

// Before anything is said

async function fetchJson(path, key = "") {
  const answer = await fetch(path, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error.message);
  return told;
}

async function learn() {
  const key = $("key").value.trim();
  // Without the key first: one that is refused must not hide where another is written.
  let about = await fetchJson("v1/about");
  $("key-card").hidden = !about.credentials_needed;
  if (about.credentials_needed) {
    if (!key) return;
    about = await fetchJson("v1/about", key);
  }
  $("stubs").hidden = !about.stub_weights;
  const { data, default_voice } = await fetchJson("v1/voices", key);
  const choices = data.map(({ id, cloned }) => new Option(cloned ? `${id} (cloned)` : id, id));
  $("voice").replaceChildren(new Option(`Default (${default_voice})`, ""), ...choices);
}

const learnAgain = () => learn().catch((error) => tellProblem(error.message));

$("mic").addEventListener("click", talk);
$("composer").addEventListener("submit", write);
$("stop").addEventListener("click", () => link.send("response.cancel"));
$("key").value = sessionStorage.getItem("parley-key") ?? "";
$("key-form").addEventListener("submit", (event) => event.preventDefault());
$("key").addEventListener("change", () => {
  sessionStorage.setItem("parley-key", $("key").value);
  learnAgain();
});
for (const id of PICKERS) $(id).addEventListener("change", configure);
learnAgain();
if (new URLSearchParams(location.search).get("autostart") === "1") talk();
