// The operator's page: the keys of one instance, as its socket tells them.
"use strict";

const EDITABLE_CHARACTERS = 100000, SHOWN_CHARACTERS = 2000;
const RETRY_MS = 500, MOST_RETRY_MS = 15000, HISTORY_MS = 150;
const DELETED = 1000, REVOKED = 4403;
const PICTURE = /^image\/(png|jpeg|gif|webp)$/;
const FLAGS = ["readonly", "hardcoded", "template"];

const live = document.getElementById("live");
const instance = live.dataset.instance;
const list = document.getElementById("keys");
const filter = document.getElementById("filter");
const adding = document.getElementById("new");
const shown = new Map(), asked = new Map();
let socket = null, wait = RETRY_MS, told = 0, operations = 0;

function make(name, words, ...inside) {
  const made = Object.assign(document.createElement(name), words);
  made.append(...inside);
  return made;
}

function say(text, on) {
  const state = document.getElementById("state");
  state.textContent = text;
  state.classList.toggle("on", on);
}

// What was asked is remembered until it is answered: by an ack, or by an error that names it.
function ask(frame, answered) {
  if (socket === null || socket.readyState !== WebSocket.OPEN) return answered("Not connected: try again.");
  const opId = instance.slice(-12) + "-" + Date.now() + "-" + ++operations;
  asked.set(opId, answered);
  socket.send(JSON.stringify({ ...frame, opId, timestamp: Date.now() }));
}

function answer(opId, problem, code) {
  asked.get(opId)?.(problem, code);
  asked.delete(opId);
}

const write = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

// A text that was a string stays one; anything else is read as JSON.
function read(text, wasText) {
  if (wasText) return text;
  try { return JSON.parse(text); } catch { return undefined; }
}

// -- one key ---------------------------------------------------------------------------------------

function draw(key) {
  const kept = {
    card: make("article", { className: "key" }),
    text: make("textarea", { spellcheck: false, rows: 1 }),
    facts: make("p", { className: "soft" }),
    chips: make("p", { className: "chips" }),
    picture: make("img", { alt: "", hidden: true }),
    note: make("p", { className: "problem", hidden: true }),
    news: make("div", { className: "news", hidden: true }),
    save: make("button", { type: "button", className: "save" }, "Save"),
    // The change that the text on the page comes of; null until it is known.
    base: null,
  };
  const remove = make("button", { type: "button", className: "quiet" }, "Delete");
  kept.card.dataset.key = key;
  kept.text.setAttribute("aria-label", "Value of " + key);
  remove.setAttribute("aria-label", "Delete " + key);
  kept.note.setAttribute("role", "alert");
  kept.news.setAttribute("role", "alert");
  kept.save.addEventListener("click", () => store(key));
  remove.addEventListener("click", () => { if (confirm("Delete " + key + "?")) erase(key); });
  kept.text.addEventListener("input", () => kept.card.classList.add("dirty"));
  kept.text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) store(key); });
  kept.card.append(
    make("div", {}, make("h3", {}, key), kept.facts, kept.chips),
    make("div", {}, kept.picture, kept.text, kept.note, kept.news),
    make("div", { className: "moves" }, kept.save, remove),
  );
  shown.set(key, kept);
  // A sync comes in order, so that most keys go to the end without a search.
  const last = list.lastElementChild;
  const next = last === null || last.dataset.key < key ? null : [...list.children].find((other) => other.dataset.key > key);
  list.insertBefore(kept.card, next ?? null);
  return kept;
}

// `ifSeq` names the change that the operator has seen: what somebody wrote meanwhile is not overwritten.
function store(key) {
  const kept = shown.get(key), value = read(kept.text.value, typeof kept.entry.value === "string");
  if (value === undefined) return complain(kept, "This is not JSON.");
  if (kept.base === null) return complain(kept, "Not loaded yet: try again.");
  kept.note.hidden = true;
  kept.sent = { value };
  ask({ type: "set", key, value, ifSeq: kept.base }, (problem, code) => {
    delete kept.sent;
    if (!problem) return settle(kept);
    kept.card.classList.add("dirty");
    if (code === "CONFLICT") differ(key, "Not saved: ");
    else complain(kept, "Not saved: " + problem);
  });
}

function erase(key) {
  const kept = shown.get(key);
  if (kept.base === null) return complain(kept, "Not loaded yet: try again.");
  ask({ type: "delete", key, ifSeq: kept.base }, (problem, code) => {
    if (problem && shown.has(key)) complain(kept, code === "CONFLICT" ? "Not deleted: somebody changed it meanwhile. This is what it is now." : "Not deleted: " + problem);
  });
}

function complain(kept, text) {
  kept.note.textContent = text;
  kept.note.hidden = false;
}

// The text on the page becomes what is stored.
function settle(kept) {
  const text = write(kept.entry.value), long = text.length > EDITABLE_CHARACTERS;
  kept.base = kept.entry.seq;
  kept.card.classList.remove("dirty");
  kept.note.hidden = kept.news.hidden = true;
  kept.text.value = long ? text.slice(0, SHOWN_CHARACTERS) + "…" : text;
  kept.text.readOnly = kept.save.disabled = long;
  kept.text.rows = Math.min(12, Math.max(1, text.slice(0, 5000).split("\n").length));
}

// Two versions: what the operator is writing, and what is stored. Saving goes on only over what was shown.
function differ(key, text) {
  const kept = shown.get(key);
  if (!kept) return;
  const theirs = make("button", { type: "button" }, "Take theirs"), mine = make("button", { type: "button", className: "quiet" }, "Save mine over it");
  theirs.addEventListener("click", () => settle(kept));
  mine.addEventListener("click", () => { kept.base = kept.entry.seq; kept.news.hidden = true; store(key); });
  kept.news.replaceChildren(make("p", {}, text + (kept.by ?? "somebody") + " changed this while you were writing. It is now:"), make("pre", { tabIndex: 0 }, write(kept.entry.value).slice(0, SHOWN_CHARACTERS)), make("div", { className: "moves" }, theirs, mine));
  kept.news.hidden = false;
}

function put(key, entry, by) {
  const fresh = !shown.has(key), kept = shown.get(key) ?? draw(key), before = kept.entry?.value;
  kept.entry = entry;
  if (by) kept.by = by;
  describe(key, kept);
  if (kept.sent && same(kept.sent.value, entry.value)) return;
  if (kept.card.classList.contains("dirty") && !same(read(kept.text.value, typeof entry.value === "string"), entry.value)) return same(before, entry.value) ? undefined : differ(key, "");
  settle(kept);
  if (by) flash(kept.card);
  if (fresh) sift(kept.card);
}

function describe(key, kept) {
  const { value, attributes, updatedAt } = kept.entry, type = attributes.type || "text";
  const when = new Date(updatedAt), today = when.toDateString() === new Date().toDateString();
  const time = make("time", { dateTime: when.toISOString(), title: when.toLocaleString() }, today ? when.toLocaleTimeString() : when.toLocaleDateString());
  kept.facts.replaceChildren(type + " · ", time, kept.by ? " · by " + kept.by : "");
  kept.chips.replaceChildren(...[...FLAGS.filter((flag) => attributes[flag]), ...(attributes.contentTags ?? []).map((tag) => "#" + tag)].map((text) => make("span", { className: "chip" }, text)));
  const blob = type === "image" || type === "file";
  kept.text.classList.toggle("blob", blob);
  kept.picture.hidden = !(type === "image" && typeof value === "string" && PICTURE.test(attributes.contentType ?? "image/png"));
  if (!kept.picture.hidden) kept.picture.src = value.startsWith("data:image/") ? value : "data:" + (attributes.contentType ?? "image/png") + ";base64," + value;
  kept.picture.alt = "The picture in " + key;
}

function flash(card) {
  card.classList.remove("fresh");
  void card.offsetWidth;
  card.classList.add("fresh");
}

// What somebody is writing stays, to be saved as a new key or left.
function drop(key, by = "somebody") {
  const kept = shown.get(key);
  if (!kept) return;
  if (kept.card.classList.contains("dirty")) {
    kept.base = kept.entry.seq = 0;
    kept.news.hidden = true;
    return complain(kept, by + " deleted this while you were writing. Save makes it anew.");
  }
  kept.card.remove();
  shown.delete(key);
}

// -- all keys --------------------------------------------------------------------------------------

function sift(card) { card.hidden = !card.dataset.key.toLowerCase().includes(filter.value.toLowerCase()); }

function count() {
  const seen = [...list.children].filter((card) => !card.hidden).length, nothing = document.getElementById("nothing");
  document.getElementById("count").textContent = (seen === shown.size ? "" : seen.toLocaleString() + " of ") + shown.size.toLocaleString();
  nothing.hidden = seen > 0;
  nothing.textContent = shown.size ? "No key contains that." : "No keys yet. Whatever anybody sets appears here at once.";
  list.hidden = seen === 0;
}

filter.addEventListener("input", () => {
  for (const card of list.children) sift(card);
  count();
});

function hear(frame) {
  if (frame.type === "sync") {
    for (const key of [...shown.keys()]) if (!(key in frame.data)) drop(key);
    for (const [key, entry] of Object.entries(frame.data).sort(([one], [other]) => (one < other ? -1 : 1))) put(key, { ...entry, seq: null });
    wait = RETRY_MS;
    number(frame.seq);
  } else if (frame.type === "key_updated") put(frame.key, { value: frame.value, attributes: frame.attributes, updatedAt: frame.timestamp, seq: frame.seq }, frame.updatedBy);
  else if (frame.type === "key_deleted") drop(frame.key, frame.deletedBy);
  else if (frame.type === "cleared") for (const key of [...shown.keys()]) drop(key, frame.clearedBy);
  else if (frame.type === "ack") return answer(frame.opId);
  else if (frame.type === "error" && asked.has(frame.opId)) return answer(frame.opId, frame.error, frame.code);
  else if (frame.type === "error") return say(frame.error, false);
  else return;
  say("live", true);
  count();
  clearTimeout(told);
  if (frame.type !== "sync" && live.dataset.newest === "1") told = setTimeout(tell, HISTORY_MS);
}

// A sync does not say which change each key was last written by. What was written after it, the socket tells.
async function number(until) {
  const answered = await fetch("/admin/instances/" + instance + "/seqs");
  if (!answered.ok) return;
  for (const [key, seq] of Object.entries((await answered.json()).seqs)) {
    const kept = shown.get(key);
    if (!kept || seq > until || kept.entry.seq !== null) continue;
    kept.entry.seq = seq;
    if (kept.base === null) kept.base = seq;
  }
}

async function tell() {
  const answered = await fetch("/admin/instances/" + instance + "/history");
  if (answered.ok) document.getElementById("history").innerHTML = await answered.text();
}

// -- the socket ------------------------------------------------------------------------------------

async function join() {
  try {
    const answered = await fetch("/admin/ws-token", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ instanceId: instance }) });
    if (answered.status === 401) return say("signed out: load the page again", false);
    if (answered.status === 404) return say("deleted", false);
    if (!answered.ok) return again();
    const { token } = await answered.json();
    const address = new URL("/sync/" + instance + "?token=" + token, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
  } catch { return again(); }
  socket.addEventListener("message", (message) => hear(JSON.parse(message.data)));
  socket.addEventListener("close", (end) => {
    for (const opId of [...asked.keys()]) answer(opId, "The connection was lost.");
    if (end.code === DELETED || end.code === REVOKED) say(end.reason || "closed", false);
    else again();
  });
}

function again() {
  say("connecting again", false);
  setTimeout(join, wait);
  wait = Math.min(wait * 2, MOST_RETRY_MS);
}

adding.addEventListener("submit", (event) => {
  event.preventDefault();
  const { key, value } = adding.elements, parsed = read(value.value, false), problem = adding.querySelector(".problem");
  // Change 0 is none: a key that is there is not overwritten.
  ask({ type: "set", key: key.value, value: parsed === undefined ? value.value : parsed, ifSeq: 0 }, (text, code) => {
    problem.hidden = !text;
    problem.textContent = code === "CONFLICT" ? "There is a key of this name already." : text ?? "";
    if (!text) adding.reset();
  });
});

join();
