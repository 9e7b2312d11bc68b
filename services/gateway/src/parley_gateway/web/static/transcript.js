// What was said, as bubbles; of a reply, what was heard stands out from what is still to come.

export class Transcript {
  constructor(list, empty) {
    this.list = list;
    this.empty = empty;
    this.turns = new Map();
  }

  turn(id, who) {
    let turn = this.turns.get(id);
    if (turn) return turn;
    const node = document.createElement("li");
    node.className = `turn ${who}`;
    node.dataset.who = who;
    const [heard, ahead, note] = ["span", "span", "small"].map((tag) => document.createElement(tag));
    heard.className = "heard";
    ahead.className = "ahead";
    note.hidden = true;
    const name = document.createElement("span");
    name.className = "visually-hidden";
    name.textContent = who === "you" ? "You: " : "Parley: ";
    node.append(name, heard, ahead, note);
    this.empty.hidden = true;
    this.list.append(node);
    turn = { node, heard, ahead, note, text: "", pieces: [], place: 0, closed: false };
    this.turns.set(id, turn);
    return turn;
  }

  said(id, stable, unstable = "", final = true) {
    const turn = this.turn(id, "you");
    turn.heard.textContent = stable || (final && !unstable ? "(no words)" : "");
    turn.ahead.textContent = unstable;
    turn.node.classList.toggle("pending", !final);
    this.follow();
  }

  listening(id) {
    const turn = this.turn(id, "you");
    if (!turn.heard.textContent) turn.heard.textContent = "…";
    turn.node.classList.add("pending");
    this.follow();
  }

  write(id, text) {
    const turn = this.turn(id, "reply");
    turn.text += text;
    this.show(turn);
    this.follow();
  }

  sound(id, piece) { this.turn(id, "reply").pieces.push(piece); }

  // `milliseconds` of the item were played.
  played(id, milliseconds) {
    const turn = this.turns.get(id);
    if (!turn || turn.closed) return;
    const base = turn.pieces[0]?.text_start ?? 0;
    let elapsed = 0;
    for (const piece of turn.pieces) {
      const share = Math.min(1, (milliseconds - elapsed) / piece.duration_ms);
      if (share <= 0) break;
      const end = piece.text_start + share * (piece.text_end - piece.text_start);
      turn.place = Math.max(turn.place, Math.round(end - base));
      elapsed += piece.duration_ms;
    }
    this.show(turn);
  }

  all(id) {
    const turn = this.turns.get(id);
    if (turn && !turn.closed) { turn.place = turn.text.length; this.show(turn); }
  }

  cut(id, heardText) {
    const turn = this.turns.get(id);
    if (!turn) return;
    turn.closed = true;
    turn.place = turn.text.startsWith(heardText) ? heardText.length : turn.place;
    turn.node.classList.add("cut");
    this.remark(turn, "interrupted here; only what you heard is remembered");
    this.show(turn);
  }

  remark(turn, text) {
    turn.note.textContent = text;
    turn.note.hidden = false;
  }

  show(turn) {
    turn.heard.textContent = turn.text.slice(0, turn.place);
    turn.ahead.textContent = turn.text.slice(turn.place);
  }

  follow() { this.list.scrollTop = this.list.scrollHeight; }
}
