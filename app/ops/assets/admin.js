// The operator's page: the keys of one instance, as its socket tells them.
"use strict";

const EDITABLE_CHARACTERS = 100000;
const RETRY_MS = 500, MOST_RETRY_MS = 15000, HISTORY_MS = 150;
const DELETED = 1000, REVOKED = 4403;

const live = document.getElementById("live");
const instance = live.dataset.instance;
const list = document.getElementById("keys");
const shown = new Map();
let socket = null, wait = RETRY_MS, told = 0;

function make(name, words, text) {
  const made = Object.assign(document.createElement(name), words);
  if (text !== undefined) made.textContent = text;
  return made;
}

function say(text, on) {
  const state = document.getElementById("state");
  state.textContent = text;
  state.classList.toggle("on", on);
}

function send(frame) {
  if (socket !== null && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
  else say("not connected", false);
}

const write = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

// A text that was a string stays one; anything else is read as JSON.
function read(text, wasText) {
  if (wasText) return text;
  try { return JSON.parse(text); } catch { return undefined; }
}

function draw(key, entry) {
  const card = make("article", { className: "card key" });
  card.dataset.key = key;
  const kept = { card, entry, text: make("textarea", { spellcheck: false }), note: make("p", { className: "problem", hidden: true }) };
  kept.text.setAttribute("aria-label", "Value of " + key);
  kept.facts = make("p", { className: "soft" });
  const save = make("button", { type: "button" }, "Save"), remove = make("button", { type: "button", className: "quiet" }, "Delete");
  save.addEventListener("click", () => store(key));
  remove.addEventListener("click", () => { if (confirm("Delete " + key + "?")) send({ type: "delete", key }); });
  kept.text.addEventListener("input", () => card.classList.add("dirty"));
  const moves = make("div", { className: "moves" });
  moves.append(save, remove);
  kept.save = save;
  card.append(make("h3", {}, key), kept.facts, kept.text, kept.note, moves);
  shown.set(key, kept);
  place(key, card);
  return kept;
}

function place(key, card) {
  const next = [...list.children].find((other) => other.dataset.key > key);
  list.insertBefore(card, next ?? null);
}

function store(key) {
  const kept = shown.get(key), value = read(kept.text.value, typeof kept.entry.value === "string");
  if (value === undefined) return complain(kept, "This is not JSON.");
  kept.note.hidden = true;
  kept.card.classList.remove("dirty");
  send({ type: "set", key, value, timestamp: Date.now() });
}

function complain(kept, text) {
  kept.note.textContent = text;
  kept.note.hidden = false;
}

function put(key, entry, by) {
  const fresh = !shown.has(key), kept = shown.get(key) ?? draw(key, entry);
  kept.entry = entry;
  const text = write(entry.value), when = new Date(entry.updatedAt).toLocaleString();
  kept.facts.textContent = [entry.attributes.type || "text", when, by && "by " + by].filter(Boolean).join(" · ");
  // What somebody is typing is theirs: say that it is old, and leave it.
  if (kept.card.classList.contains("dirty") && kept.text.value !== text) return complain(kept, "Changed meanwhile to: " + text.slice(0, 200));
  kept.card.classList.remove("dirty");
  kept.note.hidden = true;
  const long = text.length > EDITABLE_CHARACTERS;
  kept.text.value = long ? text.slice(0, 1000) + "…" : text;
  kept.text.readOnly = kept.save.disabled = long;
  kept.text.rows = Math.min(12, Math.max(1, text.slice(0, 5000).split("\n").length));
  if (!fresh || by) flash(kept.card);
}

function flash(card) {
  card.classList.remove("fresh");
  void card.offsetWidth;
  card.classList.add("fresh");
}

function drop(key) {
  shown.get(key)?.card.remove();
  shown.delete(key);
}

function hear(frame) {
  if (frame.type === "sync") {
    for (const key of [...shown.keys()]) if (!(key in frame.data)) drop(key);
    for (const [key, entry] of Object.entries(frame.data)) put(key, entry);
    wait = RETRY_MS;
    say("live", true);
  } else if (frame.type === "key_updated") put(frame.key, { value: frame.value, attributes: frame.attributes, updatedAt: frame.timestamp }, frame.updatedBy);
  else if (frame.type === "key_deleted") drop(frame.key);
  else if (frame.type === "cleared") for (const key of [...shown.keys()]) drop(key);
  else if (frame.type === "error") say(frame.error, false);
  else return;
  if (frame.type !== "error") say("live", true);
  document.getElementById("count").textContent = shown.size;
  clearTimeout(told);
  if (frame.type !== "sync" && live.dataset.newest === "1") told = setTimeout(tell, HISTORY_MS);
}

async function tell() {
  const answer = await fetch("/admin/instances/" + instance + "/history");
  if (answer.ok) document.getElementById("history").innerHTML = await answer.text();
}

async function join() {
  try {
    const answer = await fetch("/admin/ws-token", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ instanceId: instance }) });
    if (answer.status === 401) return say("signed out: load the page again", false);
    if (answer.status === 404) return say("deleted", false);
    if (!answer.ok) return again();
    const { token } = await answer.json();
    const address = new URL("/sync/" + instance + "?token=" + token, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
  } catch { return again(); }
  socket.addEventListener("message", (message) => hear(JSON.parse(message.data)));
  socket.addEventListener("close", (end) => {
    if (end.code === DELETED || end.code === REVOKED) say(end.reason || "closed", false);
    else again();
  });
}

function again() {
  say("connecting again", false);
  setTimeout(join, wait);
  wait = Math.min(wait * 2, MOST_RETRY_MS);
}

document.getElementById("new").addEventListener("submit", (event) => {
  event.preventDefault();
  const { key, value } = event.target.elements, parsed = read(value.value, false);
  send({ type: "set", key: key.value, value: parsed === undefined ? value.value : parsed, timestamp: Date.now() });
  event.target.reset();
});

join();
